"""Exact percentiles of everything that was seen: no buckets, no sketches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
