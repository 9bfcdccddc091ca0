"""The slope of a line through noisy points, where some may be far off.

Theil's estimator: the median of the slopes of all pairs; up to 29 % of the points may be anything. Its
confidence interval is Sen's (Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA
1968), by the normal approximation. It takes the points' errors as independent; memory wanders, so
`thinned` first makes one point of each stretch of time. Even so the interval is rather too narrow than too
wide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, median

import numpy as np

MIN_POINTS = 8
# All pairs of so many points are some 10,000: more would only pretend to know more.
MAX_POINTS = 150

# A moment, and what was seen then.
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Slope:
    """Per unit of time; the true one lies from `low` to `high` with the confidence asked for."""

    value: float
    low: float
    high: float
    points: int


def theil_sen(points: Sequence[Point], confidence: float = 0.95) -> Slope | None:
    """None for fewer than MIN_POINTS. Moments must differ from one another."""
    if len(points) < MIN_POINTS:
        return None
    at, value = np.array(sorted(points), dtype=np.float64).T
    assert (np.diff(at) > 0).all(), "two points at one moment"
    first, second = np.triu_indices(len(at), 1)
    slopes = np.sort((value[second] - value[first]) / (at[second] - at[first]))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(_variance(value.tolist()))
    low = max(int((len(slopes) - reach) / 2) - 1, 0)
    high = min(int((len(slopes) + reach) / 2) + 1, len(slopes) - 1)
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]), len(at))


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most so many points, each the medians of as many neighbours as any other, or one more."""
    ordered = sorted(points)
    count = min(len(ordered), most)
    edges = [round(index * len(ordered) / count) for index in range(count + 1)] if count else []
    groups = [ordered[begin:end] for begin, end in pairwise(edges)]
    return [(median(at for at, _ in group), median(value for _, value in group)) for group in groups]


def _variance(values: Sequence[float]) -> float:
    """Of Kendall's S where there is no trend; values that are equal carry less."""
    count = len(values)
    whole = count * (count - 1) * (2 * count + 5)
    ties = sum(k * (k - 1) * (2 * k + 5) for k in Counter(values).values())
    return (whole - ties) / 18
