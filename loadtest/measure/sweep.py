"""What a sweep came to: a run at each rate, and the highest that met the SLO. Stored as sweep.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.measure import rungs, stored
from loadtest.measure.result import Result, Server
from loadtest.measure.rungs import Outcome

VERSION = 2


@dataclass(frozen=True, slots=True)
class Rung:
    rate_per_s: float
    result: Result

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.rate_per_s, self.result.slo_met)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Rungs by rising rate. `highest_rate_per_s` is the highest offered rate that met the SLO and
    `goodput_per_s` the goodput there; None where every rung missed it. `lowest_miss_per_s` is the lowest
    that missed it, None where none did: then the server may hold more than was asked of it."""

    version: int
    profile: Mapping[str, Any]
    started: str
    machine: Mapping[str, Any]
    server: Server
    rungs: tuple[Rung, ...]
    highest_rate_per_s: float | None
    lowest_miss_per_s: float | None
    goodput_per_s: float | None

    @property
    def name(self) -> str:
        return str(self.profile.get("name", "unnamed"))


def sweep_of(profile: Mapping[str, Any], found: Sequence[Rung]) -> Sweep:
    """At least one rung; start, machine and server are those of the first that ran."""
    assert found, "no rung ran"
    first, outcomes = found[0].result, [rung.outcome for rung in found]
    best = rungs.highest(outcomes)
    return Sweep(
        version=VERSION,
        profile=profile,
        started=first.started,
        machine=first.machine,
        server=first.server,
        rungs=tuple(sorted(found, key=lambda rung: rung.rate_per_s)),
        highest_rate_per_s=best,
        lowest_miss_per_s=rungs.lowest_miss(outcomes),
        goodput_per_s=next((rung.result.goodput_per_s for rung in found if rung.rate_per_s == best), None),
    )


def encode(sweep: Sweep) -> str:
    return stored.dump(sweep)


def decode(text: str) -> Sweep:
    """Raises BenchError for a sweep of another version or with a bad field."""
    return stored.load(Sweep, text, VERSION)
