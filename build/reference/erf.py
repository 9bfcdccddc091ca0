"""The error function, which numpy lacks, to 1e-7: a cubic for each step of a table (Hermite)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from build.quantise import Floats

_STEPS = 512  # for each unit
_END = 6.0  # beyond, it is 1 to the last digit of a double
_BLOCK = 1 << 16  # elements worked on at a time: what fits a cache takes a quarter of the time


def _cubics() -> NDArray[np.float64]:
    """Coefficients [4, steps], from the values and slopes at both ends of each step."""
    points = np.arange(int(_END) * _STEPS + 2) / _STEPS
    values = np.array([math.erf(point) for point in points])
    slopes = 2 / math.sqrt(math.pi) * np.exp(-(points**2)) / _STEPS
    rise, first, last = np.diff(values), slopes[:-1], slopes[1:]
    return np.stack([values[:-1], first, 3 * rise - 2 * first - last, first + last - 2 * rise])


_CUBICS = _cubics()


def erf(x: Floats) -> Floats:
    """Elementwise, rounded to fp32."""
    flat = x.reshape(-1)
    values = np.empty_like(flat)
    for start in range(0, len(flat), _BLOCK):
        values[start : start + _BLOCK] = _block(flat[start : start + _BLOCK])
    return values.reshape(x.shape)


def _block(x: Floats) -> NDArray[np.float64]:
    place = np.fmin(np.abs(x), _END).astype(np.float64) * _STEPS
    step = place.astype(np.int32)
    place -= step
    sums = _CUBICS[3].take(step)
    for coefficients in _CUBICS[2::-1]:
        sums *= place
        sums += coefficients.take(step)
    sums[np.isnan(x)] = np.nan
    return np.copysign(sums, x)
