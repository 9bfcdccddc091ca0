"""Two runs side by side: what changed by more than the noise within them.

The interval of a ratio is a bootstrap over blocks of time (Künsch, 1989): requests that waited in one queue
are late together, so whole stretches of a run are drawn again, never single requests. Intervals are of 99 per
cent, because a dozen measures are compared at once. They know nothing of a machine that was slower during
one of the runs: repeat and interleave runs to see that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from loadtest.measure.record import Record
from loadtest.measure.result import Result
from loadtest.measure.slo import limits_of
from loadtest.measure.statistics import Floats, Points, measured, observe, of_ordered, percentiles

BLOCKS, DRAWS, CONFIDENCE = 20, 1000, 0.99
_LATENCIES: Mapping[str, tuple[int, ...]] = {
    "ttft": (50, 90, 99),
    "gap": (50, 90, 99),
    "itl": (50, 90, 99),
    "tpot": (50, 99),
    "e2e": (50, 99),
}
LATENCIES = tuple(f"{name}_p{percent}_s" for name, percents in _LATENCIES.items() for percent in percents)


class Change(Enum):
    BETTER = "better"
    WORSE = "worse"
    NOISE = "noise"
    UNKNOWN = "unknown"  # the runs are too thin


@dataclass(frozen=True, slots=True)
class Run:
    result: Result
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Difference:
    """`ratio` is b over a, `low` and `high` the ends of its interval; None where a is zero or nothing was
    seen. A latency is better when lower, a rate when higher."""

    name: str
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None
    high: float | None
    lower_is_better: bool

    @property
    def change(self) -> Change:
        if self.low is None or self.high is None:
            return Change.UNKNOWN
        if self.low <= 1 <= self.high:
            return Change.NOISE
        return Change.BETTER if (self.high < 1) == self.lower_is_better else Change.WORSE

    def is_worse_than(self, factor: float) -> bool:
        """Whether even the near end of the interval is worse by more than `factor`."""
        if self.low is None or self.high is None:
            return False
        return self.low > factor if self.lower_is_better else self.high < 1 / factor


def compare(a: Run, b: Run, seed: int = 0) -> tuple[Difference, ...]:
    """Latencies in seconds, then rates per second; the same seed gives the same intervals."""
    drawn_a, drawn_b = (dict(_drawn(run, np.random.default_rng(seed + n))) for n, run in enumerate((a, b)))
    names = dict.fromkeys((*drawn_a, *drawn_b))
    return tuple(_difference(name, drawn_a.get(name), drawn_b.get(name)) for name in names)


def misfits(a: Result, b: Result) -> Iterator[str]:
    """Why the two say little about each other, in words."""
    unnamed = ({k: v for k, v in run.profile.items() if k not in ("name", "description")} for run in (a, b))
    if next(unnamed) != next(unnamed):
        yield f"the profiles differ ({a.name}, {b.name}): different loads were offered"
    for what in ("cpu", "kernels", "cores"):
        if a.machine.get(what) != b.machine.get(what):
            yield f"{what} differs: {a.machine.get(what)} and {b.machine.get(what)}"
    if a.server.models != b.server.models:
        yield f"the models differ: {', '.join(a.server.models)} and {', '.join(b.server.models)}"


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A figure of the run, and of each draw [DRAWS]; NaN where a draw had nothing."""

    value: float
    draws: Floats
    lower_is_better: bool


def _drawn(run: Run, chance: np.random.Generator) -> Iterator[tuple[str, _Drawn]]:
    # How often each block is in each draw: [DRAWS, BLOCKS].
    counts = chance.multinomial(BLOCKS, [1 / BLOCKS] * BLOCKS, size=DRAWS).astype(np.float64)
    taken = measured(run.records)
    seen = observe(taken)
    for name, percents in _LATENCIES.items():
        points: Points = getattr(seen, name)
        if len(points):
            yield from _percentiles(name, percents, points, run.result.window_s, counts)
    yield from _rates(run, taken, counts)


def _percentiles(
    name: str, percents: tuple[int, ...], points: Points, window_s: tuple[float, float], counts: Floats
) -> Iterator[tuple[str, _Drawn]]:
    order = np.argsort(points.value)
    values, weights = points.value[order], points.weight[order]
    block = _block(points.at_s[order], window_s)
    draws = np.full((len(counts), len(percents)), np.nan)
    for row, count in enumerate(counts):
        drawn = weights * count[block]
        if drawn.any():
            draws[row] = of_ordered(values, drawn, percents)
    for column, (percent, value) in enumerate(zip(percents, percentiles(points, percents), strict=True)):
        yield f"{name}_p{percent}_s", _Drawn(value, draws[:, column], lower_is_better=True)


def _rates(run: Run, taken: Sequence[Record], counts: Floats) -> Iterator[tuple[str, _Drawn]]:
    start_s, end_s = window_s = run.result.window_s
    limits = limits_of(run.result.profile.get("slo", {}))
    complete = [r.end_s for r in run.records if r.is_complete and start_s <= r.end_s < end_s]
    good = [record.intended_s for record in taken if limits.accepts(record)]
    tokens = observe(run.records).tokens.between(start_s, end_s)
    kinds = {
        "tokens_per_s": (tokens.at_s, tokens.weight),
        "requests_per_s": (np.asarray(complete, dtype=np.float64), None),
        "goodput_per_s": (np.asarray(good, dtype=np.float64), None),
    }
    for name, (moments, weights) in kinds.items():
        sums = np.bincount(_block(moments, window_s), weights, BLOCKS)
        draws = counts @ sums / (end_s - start_s)
        yield name, _Drawn(getattr(run.result, name), draws, lower_is_better=False)


def _block(moments: Floats, window_s: tuple[float, float]) -> NDArray[np.intp]:
    """The block of each moment; tokens that came after the window belong to its last."""
    start_s, end_s = window_s
    places = np.floor((moments - start_s) / (end_s - start_s) * BLOCKS)
    block: NDArray[np.intp] = places.clip(0, BLOCKS - 1).astype(np.intp)
    return block


def _difference(name: str, a: _Drawn | None, b: _Drawn | None) -> Difference:
    either = a or b
    assert either is not None
    found = (name, None if a is None else a.value, None if b is None else b.value)
    if a is None or b is None or not a.value:
        return Difference(*found, None, None, None, either.lower_is_better)
    usable = (a.draws > 0) & np.isfinite(b.draws)
    ratios = b.draws[usable] / a.draws[usable]
    # Where draws are missing the interval would be of the better ones alone.
    if len(ratios) < CONFIDENCE * DRAWS:
        return Difference(*found, b.value / a.value, None, None, a.lower_is_better)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(ratios, (tail, 100 - tail))
    return Difference(*found, b.value / a.value, float(low), float(high), a.lower_is_better)
