"""What a soak test asks: no error, no growth in memory, and latency at its end as at its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from loadtest.measure.observed import observe
from loadtest.measure.record import Record
from loadtest.measure.statistics import Points, percentiles
from loadtest.soak.slope import Slope


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


def trend(slope: Slope | None, limits: Limits) -> Trend:
    """Steady or growing only where the whole interval says so."""
    if slope is None:
        return Trend.UNDECIDED
    if slope.high <= limits.growth_mb_per_h:
        return Trend.STEADY
    return Trend.GROWING if slope.low > limits.growth_mb_per_h else Trend.UNDECIDED


def drifts(records: Sequence[Record], window_s: tuple[float, float]) -> tuple[Drift, Drift]:
    """TTFT and the gap between chunks, by when a request should have been sent."""
    start_s, end_s = window_s
    third_s = (end_s - start_s) / 3
    first = observe([r for r in records if start_s <= r.intended_s < start_s + third_s])
    last = observe([r for r in records if end_s - third_s <= r.intended_s < end_s])
    return Drift("TTFT", _p99(first.ttft), _p99(last.ttft)), Drift("gap", _p99(first.gap), _p99(last.gap))


def _p99(points: Points) -> float | None:
    return percentiles(points, (99,))[0] if len(points) else None
