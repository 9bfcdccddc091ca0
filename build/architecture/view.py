"""Tensors as an architecture names and shapes them, where a checkpoint stores them otherwise.

A view costs nothing: what is stored is read, and turned or cut, when its weight is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from build.checkpoint import Weight
from build.quantise import Floats

Change = Callable[[Floats], Floats]


def transposed(weight: Weight) -> Weight:
    """[columns, rows] as [rows, columns]."""
    return Weight(weight.shape[::-1], partial(_read, weight.read, np.transpose))


def part(weight: Weight, index: int, count: int) -> Weight:
    """One of `count` equal parts, side by side on the last axis."""
    size = weight.shape[-1] // count
    at = slice(index * size, (index + 1) * size)
    return Weight((*weight.shape[:-1], size), partial(_read, weight.read, lambda values: values[..., at]))


def shifted(weight: Weight, by: float) -> Weight:
    return Weight(weight.shape, partial(_read, weight.read, lambda values: values + np.float32(by)))


def _read(read: Callable[[], Floats], change: Change) -> Floats:
    return np.ascontiguousarray(change(read()))
