"""Weights as TensorRT's DequantizeLinear takes them: symmetric, every scale positive.

    value = scale * level

int8 and fp8 have one scale for each row of a product, int4 one for each block of a row's columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray

from build.quantise import Floats

# Columns of a block of 4 bits. With 32 SmolLM2-135M loses 8.8 % of perplexity, with 64 15.7 %.
BLOCK_SIZES = (32, 64, 128)
# The largest magnitude of a block may be clipped a little, where that serves the others.
_CLIPPED = (1.0, 0.95, 0.9, 0.85, 0.8)
# The smallest normal number of float16.
_SMALLEST_SCALE = np.float32(2.0**-14)


class Kind(Enum):
    """What a level is stored as, and the largest that is used."""

    INT8 = (np.int8, 127.0)
    INT4 = (ml_dtypes.int4, 7.0)
    FP8 = (ml_dtypes.float8_e4m3fn, 448.0)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(self.value[0])

    @property
    def largest(self) -> np.float32:
        return np.float32(self.value[1])


@dataclass(frozen=True)
class Rounded:
    """`levels` [rows, columns]; `scales` [rows, columns / block_size], or [rows] where block_size is 0."""

    levels: NDArray[np.generic]
    scales: NDArray[np.generic]
    block_size: int

    def restored(self) -> Floats:
        levels, scales = self.levels.astype(np.float32), self.scales.astype(np.float32)
        return levels * (np.repeat(scales, self.block_size, axis=1) if self.block_size else scales[:, None])


def round_rows(matrix: Floats, kind: Kind, scale_type: DTypeLike) -> Rounded:
    scales = _scales(np.abs(matrix).max(axis=1) / kind.largest, scale_type)
    return Rounded(_levels(matrix, scales[:, None], kind), scales, 0)


def round_blocks(matrix: Floats, size: int, scale_type: DTypeLike) -> Rounded:
    """4 bits; of a few scales the one with the smallest squared error is taken for each block."""
    rows, columns = matrix.shape
    blocks = matrix.reshape(rows, columns // size, size)
    peaks = np.abs(blocks).max(axis=2) / Kind.INT4.largest
    best = _scales(peaks, scale_type)
    least = np.full(peaks.shape, np.inf, np.float32)
    for share in _CLIPPED:
        scales = _scales(peaks * np.float32(share), scale_type)
        error = _squared_error(blocks, scales)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    levels = _levels(blocks, best[:, :, None], Kind.INT4)
    return Rounded(levels.reshape(rows, columns), best, size)


def _scales(values: Floats, scale_type: DTypeLike) -> NDArray[np.generic]:
    """Rounded before they are used; those of nothing but zeros, and too small ones, are made normal."""
    return np.maximum(values, _SMALLEST_SCALE).astype(scale_type)


def _squared_error(blocks: Floats, scales: NDArray[np.generic]) -> Floats:
    wide = scales.astype(np.float32)[:, :, None]
    error: Floats = ((np.rint(blocks / wide).clip(-8, 7) * wide - blocks) ** 2).sum(axis=2)
    return error


def _levels(values: Floats, scales: NDArray[np.generic], kind: Kind) -> NDArray[np.generic]:
    levels = values / scales.astype(np.float32)
    if kind is not Kind.FP8:
        levels = np.rint(levels)
    lowest = -8 if kind is Kind.INT4 else -kind.largest
    return levels.clip(lowest, kind.largest).astype(kind.dtype)
