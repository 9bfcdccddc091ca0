"""The verdict of a soak test: no error, memory does not grow, latency at its end is as at its start. Pure.

The slope of memory is Theil's: the median of the slopes of all pairs of readings; up to 29 % of them may be
anything. Its confidence interval is Sen's (Sen, "Estimates of the regression coefficient based on Kendall's
tau", JASA 1968), by the normal approximation. It takes the errors of the readings as independent; memory
wanders, so `thinned` first makes one point of each stretch of time. Even so the interval is rather too narrow
than too wide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, median
from typing import Any

import numpy as np

from loadtest.measure.record import Record
from loadtest.measure.statistics import Points, measured, observe, percentiles

VERSION = 1
MB = 1e6
MIN_POINTS = 8
# All pairs of 150 points are about 11,000; more would not know more.
MAX_POINTS = 150
_HOUR_S = 3600.0

# A moment, and what was seen then.
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Look:
    """A reading: seconds since the first; bytes of all processes of the server together."""

    at_s: float
    rss: int
    pss: int
    processes: int


@dataclass(frozen=True, slots=True)
class Slope:
    """Per unit of time; the true one lies from `low` to `high` with the confidence asked for."""

    value: float
    low: float
    high: float
    points: int


class Trend(Enum):
    STEADY = "steady"
    GROWING = "growing"
    UNDECIDED = "undecided"  # too short, or too noisy, to tell


@dataclass(frozen=True, slots=True)
class Limits:
    """`growth_mb_per_h` is what memory may grow by; `drift` what the last third's p99 may be, of the
    first's."""

    growth_mb_per_h: float = 16.0
    drift: float = 1.3


@dataclass(frozen=True, slots=True)
class Drift:
    """Seconds, of the first and the last third of the measured time; None where a third has no value."""

    name: str
    first_p99_s: float | None
    last_p99_s: float | None

    @property
    def ratio(self) -> float | None:
        if not self.first_p99_s or self.last_p99_s is None:
            return None
        return self.last_p99_s / self.first_p99_s

    def holds(self, limits: Limits) -> bool:
        """What could not be measured does not hold."""
        return self.ratio is not None and self.ratio <= limits.drift


@dataclass(frozen=True, slots=True)
class Finding:
    """Memory in MB (10^6 bytes), slopes in MB an hour, each without the first `settle_s`. `errors` are the
    measured requests that did not end as the mix asked. `ended` is true where the server did."""

    rate_per_s: float
    measured_s: float
    settle_s: float
    requests: int
    errors: int
    tokens_out: int
    rss_first_mb: float
    rss_last_mb: float
    rss_peak_mb: float
    pss_peak_mb: float
    rss_slope: Slope | None
    pss_slope: Slope | None
    rss_trend: Trend
    drifts: tuple[Drift, ...]
    limits: Limits
    ended: bool

    @property
    def holds(self) -> bool:
        return (
            not self.ended
            and self.requests > 0
            and self.errors == 0
            and self.rss_trend is Trend.STEADY
            and all(drift.holds(self.limits) for drift in self.drifts)
        )


def finding(
    records: Sequence[Record],
    window_s: tuple[float, float],
    looks: Sequence[Look],
    rate_per_s: float,
    settle_s: float,
    limits: Limits,
    *,
    ended: bool,
) -> Finding:
    """`looks` has at least one; `window_s` is what the load measured."""
    assert looks, "the server's memory was never read"
    taken = measured(records)
    settled = [look for look in looks if look.at_s >= settle_s] or list(looks[-1:])
    rss = theil_sen(thinned([(look.at_s / _HOUR_S, look.rss / MB) for look in settled]))
    pss = theil_sen(thinned([(look.at_s / _HOUR_S, look.pss / MB) for look in settled]))
    return Finding(
        rate_per_s=rate_per_s,
        measured_s=window_s[1] - window_s[0],
        settle_s=settle_s,
        requests=len(taken),
        errors=sum(not record.expected for record in taken),
        tokens_out=sum(record.tokens_out for record in taken),
        rss_first_mb=settled[0].rss / MB,
        rss_last_mb=settled[-1].rss / MB,
        rss_peak_mb=max(look.rss for look in looks) / MB,
        pss_peak_mb=max(look.pss for look in looks) / MB,
        rss_slope=rss,
        pss_slope=pss,
        rss_trend=trend(rss, limits),
        drifts=drifts(taken, window_s),
        limits=limits,
        ended=ended,
    )


def to_json(found: Finding, looks: Sequence[Look], machine: Mapping[str, Any], *, interrupted: bool) -> Any:
    drifted = [asdict(drift) | {"ratio": drift.ratio} for drift in found.drifts]
    return {
        "version": VERSION,
        "machine": machine,
        "holds": found.holds,
        "interrupted": interrupted,
        "finding": asdict(found) | {"rss_trend": found.rss_trend.value, "drifts": drifted},
        "memory": {
            "at_s": [round(look.at_s, 3) for look in looks],
            "rss_bytes": [look.rss for look in looks],
            "pss_bytes": [look.pss for look in looks],
            "processes": [look.processes for look in looks],
        },
    }


def trend(slope: Slope | None, limits: Limits) -> Trend:
    """Steady or growing only where the whole interval says so."""
    if slope is None:
        return Trend.UNDECIDED
    if slope.high <= limits.growth_mb_per_h:
        return Trend.STEADY
    return Trend.GROWING if slope.low > limits.growth_mb_per_h else Trend.UNDECIDED


def drifts(records: Sequence[Record], window_s: tuple[float, float]) -> tuple[Drift, Drift]:
    """TTFT and the gap between chunks, by when a request should have been sent."""

    def p99(points: Points) -> float | None:
        return percentiles(points, (99,))[0] if len(points) else None

    start_s, end_s = window_s
    third_s = (end_s - start_s) / 3
    first = observe([r for r in records if start_s <= r.intended_s < start_s + third_s])
    last = observe([r for r in records if end_s - third_s <= r.intended_s < end_s])
    return Drift("TTFT", p99(first.ttft), p99(last.ttft)), Drift("gap", p99(first.gap), p99(last.gap))


def theil_sen(points: Sequence[Point], confidence: float = 0.95) -> Slope | None:
    """None for fewer than MIN_POINTS. Moments must differ from one another."""
    if len(points) < MIN_POINTS:
        return None
    at, value = np.array(sorted(points), dtype=np.float64).T
    assert (np.diff(at) > 0).all(), "two points at one moment"
    first, second = np.triu_indices(len(at), 1)
    slopes = np.sort((value[second] - value[first]) / (at[second] - at[first]))
    # The variance of Kendall's S where there is no trend; values that are equal carry less.
    count = len(at)
    ties = sum(k * (k - 1) * (2 * k + 5) for k in Counter(value.tolist()).values())
    variance = (count * (count - 1) * (2 * count + 5) - ties) / 18
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(variance)
    low = max(int((len(slopes) - reach) / 2) - 1, 0)
    high = min(int((len(slopes) + reach) / 2) + 1, len(slopes) - 1)
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]), count)


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most `most` points: each the medians of a group of neighbours, the groups of one size or one
    more."""
    ordered = sorted(points)
    count = min(len(ordered), most)
    edges = [round(index * len(ordered) / count) for index in range(count + 1)] if count else []
    groups = [ordered[begin:end] for begin, end in pairwise(edges)]
    return [(median(at for at, _ in group), median(value for _, value in group)) for group in groups]
