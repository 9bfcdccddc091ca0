"""What KEDA's operator adds to the HPA that it creates: from 0 replicas to the first, and back.

Above 0 the HPA decides alone, by External metrics with an AverageValue: the scaler's value over its
threshold. The operator looks every `polling_s` whether any trigger is above its activation threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Activity:
    """Of a ScaledObject; `idle` replicas stand where nothing is active, none is `minimum`."""

    minimum: int = 0
    polling_s: float = 30.0
    cooldown_s: float = 300.0
    idle: int | None = None

    @property
    def resting(self) -> int | None:
        """The replicas of a service that is not used; None where the HPA's minimum holds then too."""
        if self.idle is not None:
            return self.idle
        return 0 if self.minimum == 0 else None


@dataclass
class Operator:
    """State: when it polled last, and when a trigger was last active."""

    activity: Activity
    _polled_s: float | None = None
    _active_s: float = 0.0

    def poll(self, now_s: float, current: int, values: Sequence[int], activations: Sequence[int]) -> int:
        """The replicas to run, by the triggers' values; `current` where the HPA is to decide."""
        if self._polled_s is not None and now_s < self._polled_s + self.activity.polling_s:
            return current
        self._polled_s = now_s
        resting = self.activity.resting
        if any(value > activation for value, activation in zip(values, activations, strict=True)):
            self._active_s = now_s
            starts = current == 0 or (resting is not None and current <= resting)
            return max(self.activity.minimum, 1) if starts else current
        if resting is not None and current > resting:
            return resting if now_s > self._active_s + self.activity.cooldown_s else current
        if resting is None and current < self.activity.minimum:
            return self.activity.minimum
        return current
