"""The types in which this dialect computes and stores products, and how weights are rounded to them.

Rounded weights are as TensorRT's DequantizeLinear takes them, symmetric with positive scales:

    value = scale * level

int8 and fp8 have one scale for each row of a product, int4 one for each block of a row's columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike, NDArray

from build.dialects.encoding import Role
from build.errors import BadInput
from build.quantise import Floats, Precision

PRECISIONS = (Precision.FP16, Precision.BF16, Precision.INT8, Precision.INT4, Precision.FP8)
# Activations of these leave the range of float16: with rounded weights they are computed in bfloat16.
_WIDE_FAMILIES = ("t5", "mt5", "gemma3", "gemma3_text")
_COMPUTE = {
    Precision.FP32: ir.DataType.FLOAT,
    Precision.FP16: ir.DataType.FLOAT16,
    Precision.BF16: ir.DataType.BFLOAT16,
}
# Columns of a block of 4 bits. With 32 SmolLM2-135M loses 8.8 % of perplexity, with 64 15.7 %.
BLOCK_SIZES = (32, 64, 128)
# The largest magnitude of a block may be clipped a little if that lowers the block's error.
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


def require_precision(precision: Precision) -> None:
    """BadInput for a precision that TensorRT does not take."""
    if precision not in PRECISIONS:
        known = ", ".join(each.value for each in PRECISIONS)
        raise BadInput(f"precision {precision.value}: engine tensorrt takes {known}")


def compute_type(precision: Precision, family: str) -> ir.DataType:
    """The type of activations, norms, tables, caches and scales."""
    rounded = ir.DataType.BFLOAT16 if family in _WIDE_FAMILIES else ir.DataType.FLOAT16
    return _COMPUTE.get(precision, rounded)


def stored_kind(precision: Precision, role: Role, blocks_fit: bool) -> Kind | None:
    """What a product is stored as, None for dense. At int4, products that lose most, or whose columns are no
    multiple of a block, keep 8 bits.
    """
    if precision is Precision.INT4:
        return Kind.INT4 if role is Role.ROBUST and blocks_fit else Kind.INT8
    return {Precision.INT8: Kind.INT8, Precision.FP8: Kind.FP8}.get(precision)


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
    """4 bits; each block takes that of a few scales that has the smallest squared error."""
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
    """Scales in their stored type, at least the smallest normal number, also for rows of zeros."""
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
