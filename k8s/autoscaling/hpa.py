"""The controller of a HorizontalPodAutoscaler: one decision every 15 seconds.

`decide()` takes what each metric proposes (None where it has no value) and gives the replicas to run. It
keeps its past recommendations and changes; time is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from k8s.autoscaling.behavior import DEFAULT_DOWN, DEFAULT_UP, Rules, Stamped, ceiling, floor, stabilised

SYNC_PERIOD_S: Final = 15.0


@dataclass(frozen=True)
class Limits:
    """`spec` of the HPA without its metrics."""

    minimum: int
    maximum: int
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN


@dataclass
class Controller:
    limits: Limits
    _recommended: list[Stamped] = field(default_factory=list)
    _added: list[Stamped] = field(default_factory=list)
    _removed: list[Stamped] = field(default_factory=list)

    def decide(self, now_s: float, current: int, proposals: Sequence[int | None]) -> int:
        """The replicas to run. Nothing is done at 0 replicas: whoever stopped them starts them again."""
        limits = self.limits
        if current == 0 and limits.minimum > 0:
            return current
        if not limits.minimum <= current <= limits.maximum:
            return self._change(now_s, current, min(max(current, limits.minimum), limits.maximum))
        desired = _largest(proposals, current)
        if desired is None:
            return current
        steady = stabilised(now_s, current, desired, self._recommended, limits.up, limits.down)
        self._remember(now_s, desired)
        return self._change(now_s, current, self._allowed(now_s, current, steady))

    def _allowed(self, now_s: float, current: int, wanted: int) -> int:
        limits = self.limits
        if wanted > current:
            return min(wanted, limits.maximum, ceiling(now_s, current, self._added, self._removed, limits.up))
        if wanted < current:
            return max(wanted, limits.minimum, floor(now_s, current, self._added, self._removed, limits.down))
        return min(max(wanted, limits.minimum), limits.maximum)

    def _remember(self, now_s: float, desired: int) -> None:
        longest = max(self.limits.up.stabilisation_s, self.limits.down.stabilisation_s)
        self._recommended = [one for one in self._recommended if one.at_s > now_s - longest]
        self._recommended.append(Stamped(now_s, desired))

    def _change(self, now_s: float, current: int, replicas: int) -> int:
        if replicas > current:
            self._added.append(Stamped(now_s, replicas - current))
        elif replicas < current:
            self._removed.append(Stamped(now_s, current - replicas))
        return replicas


def _largest(proposals: Sequence[int | None], current: int) -> int | None:
    """None where nothing may change: no metric has a value, or one has none and the others would shrink."""
    known = [one for one in proposals if one is not None]
    if not known or (len(known) < len(proposals) and max(known) < current):
        return None
    return max(known)
