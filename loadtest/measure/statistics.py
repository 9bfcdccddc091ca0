"""What the records hold of each measure, and exact percentiles of it: no buckets, no sketches. A run is also
cut into windows of equal length, warm-up and drain included, so that a plot shows when what happened.

TTFT, TPOT, lag and E2E are seen at the moment the request should have been sent; gaps between chunks and the
tokens themselves when they came. A request that ended without a token has no TTFT: it is among the errors, so
a limit on latency says nothing without the one on errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.measure.record import Record

Floats = NDArray[np.float64]
NO_ERROR = "no error"
_WINDOWS = 60


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in seconds of `n` values."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    max: float
    n: int


@dataclass(frozen=True, slots=True)
class Points:
    """Values [n] seen at moments [n], each `weight` [n] times: a chunk's gap once for each of its tokens."""

    at_s: Floats
    value: Floats
    weight: Floats

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, int]]) -> Points:
        columns = np.array(rows, dtype=np.float64).reshape(len(rows), 3).T
        return cls(*columns)

    def __len__(self) -> int:
        return len(self.value)

    def between(self, start_s: float, end_s: float) -> Points:
        """Those seen from `start_s` on and before `end_s`."""
        inside = (self.at_s >= start_s) & (self.at_s < end_s)
        return Points(self.at_s[inside], self.value[inside], self.weight[inside])


def percentiles(points: Points, percents: Sequence[float]) -> list[float]:
    """Each between the two nearest values, in proportion ("linear"); there must be at least one value.

    A value of weight k stands k times, without being written out k times.
    """
    order = np.argsort(points.value)
    return of_ordered(points.value[order], points.weight[order], percents)


def of_ordered(values: Floats, weights: Floats, percents: Sequence[float]) -> list[float]:
    """The same of rising values; those of weight 0 do not count, and one must have more."""
    until = np.cumsum(weights)
    assert len(until), "there must be at least one value"
    assert until[-1] > 0, "there must be at least one value"
    place = (until[-1] - 1) * np.asarray(percents, dtype=np.float64) / 100
    low, high = np.floor(place), np.ceil(place)
    at_low = values[np.searchsorted(until, low, side="right")]
    at_high = values[np.searchsorted(until, high, side="right")]
    return [float(value) for value in at_low + (at_high - at_low) * (place - low)]


def latency(points: Points) -> Latency | None:
    """None where nothing was seen."""
    if not len(points):
        return None
    p50, p90, p95, p99 = percentiles(points, (50, 90, 95, 99))
    mean = float(np.average(points.value, weights=points.weight))
    return Latency(p50, p90, p95, p99, mean, float(points.value.max()), int(points.weight.sum()))


@dataclass(frozen=True, slots=True)
class Observed:
    """`e2e` is of complete requests alone. `tokens` are values of 1, weighted by how many came."""

    ttft: Points
    gap: Points
    itl: Points
    tpot: Points
    e2e: Points
    lag: Points
    tokens: Points


def observe(records: Sequence[Record]) -> Observed:
    # An answer in one piece comes with its end.
    tokens = (chunk for r in records for chunk in r.chunks or ((r.end_s, r.tokens_out),))
    return Observed(
        ttft=Points.of([(r.intended_s, r.ttft_s, 1) for r in records if r.ttft_s is not None]),
        gap=Points.of(
            [(c[0], gap_s, 1) for r in records for c, gap_s in zip(r.chunks[1:], r.gaps_s, strict=True)]
        ),
        itl=Points.of(
            [(c[0], *share) for r in records for c, share in zip(r.chunks[1:], r.itl, strict=True)]
        ),
        tpot=Points.of([(r.intended_s, r.tpot_s, 1) for r in records if r.tpot_s is not None]),
        e2e=Points.of([(r.intended_s, r.e2e_s, 1) for r in records if r.is_complete]),
        lag=Points.of([(r.intended_s, r.lag_s, 1) for r in records]),
        tokens=Points.of([(at_s, 1.0, count) for at_s, count in tokens]),
    )


def measured(records: Iterable[Record]) -> list[Record]:
    """Those that statistics take: neither warm-up nor drain."""
    return [record for record in records if record.phase == "measure"]


def error_class(record: Record) -> str | None:
    """Of an error that the mix did not ask for; NO_ERROR where it asked for one and none came."""
    return None if record.expected else record.error or NO_ERROR


@dataclass(frozen=True, slots=True)
class Band:
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Window:
    """From `t_s` on. `offered_per_s` counts requests by their intended start, `finished_per_s` complete ones
    by their end, `in_flight` is the mean number sent and not ended. `errors` are the unplanned
    ones."""

    t_s: float
    offered_per_s: float
    finished_per_s: float
    tokens_per_s: float
    in_flight: float
    lag_max_s: float | None
    ttft_s: Band | None
    gap_s: Band | None
    errors: Mapping[str, int]


def width_of(measured_s: float) -> float:
    """Seconds of a window, where `measured_s` were measured."""
    return max(1.0, measured_s / _WINDOWS)


def timeline(records: Sequence[Record], width_s: float) -> tuple[Window, ...]:
    if not records:
        return ()
    seen = observe(records)
    sent: Floats = np.array([record.sent_s for record in records])
    end: Floats = np.array([record.end_s for record in records])
    finished = [record.end_s for record in records if record.is_complete]
    errors = [(record.end_s, name) for record in records if (name := error_class(record)) is not None]

    def window(start_s: float, end_s: float) -> Window:
        lag = seen.lag.between(start_s, end_s)
        overlap = np.minimum(end, end_s) - np.maximum(sent, start_s)
        return Window(
            t_s=start_s,
            offered_per_s=len(lag) / width_s,
            finished_per_s=sum(start_s <= at_s < end_s for at_s in finished) / width_s,
            tokens_per_s=float(seen.tokens.between(start_s, end_s).weight.sum()) / width_s,
            in_flight=float(overlap.clip(0).sum()) / width_s,
            lag_max_s=float(lag.value.max()) if len(lag) else None,
            ttft_s=_band(seen.ttft.between(start_s, end_s)),
            gap_s=_band(seen.gap.between(start_s, end_s)),
            errors=dict(Counter(name for at_s, name in errors if start_s <= at_s < end_s)),
        )

    count = int(max(end) // width_s) + 1
    return tuple(window(index * width_s, (index + 1) * width_s) for index in range(count))


def _band(points: Points) -> Band | None:
    return Band(*percentiles(points, (50, 90, 99))) if len(points) else None
