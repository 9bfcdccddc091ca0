"""A sweep: the search, from the rates tried so far to the next one, and its result, stored as sweep.json.

The rate doubles until the SLO is missed, or halves until it is met; then the interval between the highest
that met it and the lowest that missed it is cut at its geometric mean until it is as small as asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

from loadtest.errors import BenchError
from loadtest.fields import dump, load
from loadtest.measure.result import Result, ServerFacts

VERSION = 2
# Halved so often, the start was no guess.
_HALVINGS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    rate_per_s: float
    met: bool


@dataclass(frozen=True, slots=True)
class Search:
    """Rates in requests a second; `resolution` is relative: 0.1 ends at an interval of ten per cent."""

    start_per_s: float
    max_per_s: float
    resolution: float

    def __post_init__(self) -> None:
        for name in ("start_per_s", "max_per_s", "resolution"):
            value = getattr(self, name)
            if not isfinite(value) or value <= 0:
                raise BenchError(f"sweep.{name} is {value}, must be a finite number above 0")
        if self.start_per_s > self.max_per_s:
            raise BenchError(f"sweep.start_per_s is {self.start_per_s}, must be at most {self.max_per_s}")
        # Finer than doubles can be cut, the search would find no rate between two others.
        if self.resolution < 1e-6:
            raise BenchError(f"sweep.resolution is {self.resolution}, must be at least 1e-06")


def highest(outcomes: Sequence[Outcome]) -> float | None:
    """The highest rate that met the SLO, of those below the lowest that missed it; None where none did."""
    ceiling = lowest_miss(outcomes)
    met = [o.rate_per_s for o in outcomes if o.met and (ceiling is None or o.rate_per_s < ceiling)]
    return max(met, default=None)


def lowest_miss(outcomes: Sequence[Outcome]) -> float | None:
    return min((o.rate_per_s for o in outcomes if not o.met), default=None)


def next_rate(search: Search, outcomes: Sequence[Outcome]) -> float | None:
    """None when there is nothing left to try; never a rate that was tried."""
    if not outcomes:
        return search.start_per_s
    low, high = highest(outcomes), lowest_miss(outcomes)
    if high is None:
        assert low is not None
        return min(2 * low, search.max_per_s) if low < search.max_per_s else None
    if low is None:
        return high / 2 if high > search.start_per_s / 2**_HALVINGS else None
    return sqrt(low * high) if high > low * (1 + search.resolution) else None


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
    server: ServerFacts
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
    best = highest(outcomes)
    return Sweep(
        version=VERSION,
        profile=profile,
        started=first.started,
        machine=first.machine,
        server=first.server,
        rungs=tuple(sorted(found, key=lambda rung: rung.rate_per_s)),
        highest_rate_per_s=best,
        lowest_miss_per_s=lowest_miss(outcomes),
        goodput_per_s=next((rung.result.goodput_per_s for rung in found if rung.rate_per_s == best), None),
    )


def encode(sweep: Sweep) -> str:
    return dump(sweep)


def decode(text: str) -> Sweep:
    """Raises BenchError for a sweep of another version or with a bad field."""
    return load(Sweep, text, VERSION)
