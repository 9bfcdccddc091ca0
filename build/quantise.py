"""Rounded weights: in blocks along the columns, as MatMulNBits holds them, or by rows.

In blocks, a row of a [rows, columns] matrix is cut into blocks of `block_size` columns (the last one padded
with zeros). A block has one fp32 scale; value = scale * (level - zero), zero = 2**(bits - 1). Blocks
of a file may also have an offset each, which is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ids = NDArray[np.int64]


class Precision(Enum):
    """How the products of an engine are stored; its dialect decides the types of everything else."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"
    GGUF = "gguf"


@dataclass(frozen=True)
class Blocks:
    """Unsigned levels [rows, blocks, block_size], one byte each; scales, and offsets where there are any,
    [rows, blocks].
    """

    bits: int
    columns: int
    levels: Bytes
    scales: Floats
    offsets: Floats | None = None

    def __post_init__(self) -> None:
        assert self.bits in (4, 8)
        assert self.levels.shape[:2] == self.scales.shape
        assert self.offsets is None or self.offsets.shape == self.scales.shape
        assert 0 <= self.levels.shape[1] * self.block_size - self.columns < self.block_size

    @property
    def rows(self) -> int:
        return int(self.levels.shape[0])

    @property
    def block_size(self) -> int:
        return int(self.levels.shape[2])

    @property
    def zero(self) -> int:
        return 1 << (self.bits - 1)

    def dequantise(self) -> Floats:
        signed = self.levels.astype(np.float32) - np.float32(self.zero)
        values = signed * self.scales[:, :, None]
        if self.offsets is not None:
            values += self.offsets[:, :, None]
        return np.ascontiguousarray(values.reshape(self.rows, -1)[:, : self.columns])

    def packed(self) -> Bytes:
        """The operator's B: [rows, blocks, block_size * bits / 8]; the even level is the low nibble."""
        if self.bits == 8:
            return self.levels
        return self.levels[:, :, 0::2] | (self.levels[:, :, 1::2] << np.uint8(4))

    def take_rows(self, order: NDArray[np.intp]) -> Blocks:
        offsets = None if self.offsets is None else self.offsets[order]
        return Blocks(self.bits, self.columns, self.levels[order], self.scales[order], offsets)

    def widened(self) -> Blocks:
        """The same values in 8 bits, exactly."""
        if self.bits == 8:
            return self
        shift = np.uint8(128 - self.zero)
        return Blocks(8, self.columns, self.levels + shift, self.scales, self.offsets)


@dataclass(frozen=True)
class Rows:
    """Signed levels [rows, columns] within 127 of zero, and one fp32 scale a row: value = scale * level."""

    levels: NDArray[np.int8]
    scales: Floats

    def dequantise(self) -> Floats:
        return self.levels.astype(np.float32) * self.scales[:, None]


def quantise_rows(matrix: Floats) -> Rows:
    """Round to nearest; the largest magnitude of a row is represented within half a level."""
    scales = row_scales(matrix)
    levels = np.rint(matrix * _inverse(scales)[:, None]).clip(-127, 127)
    return Rows(levels.astype(np.int8), scales)


def row_scales(matrix: Floats) -> Floats:
    """The scales that map the largest magnitude of each row to level 127; 0 for a row of zeros."""
    largest: Floats = np.abs(matrix).max(axis=1) / np.float32(127)
    largest[largest < np.finfo(np.float32).tiny] = 0
    return largest


def quantise(matrix: Floats, bits: int, block_size: int) -> Blocks:
    """Round to nearest; the largest magnitude of a block is represented within half a level."""
    rows, columns = matrix.shape
    padded = np.zeros((rows, -(-columns // block_size), block_size), np.float32)
    padded.reshape(rows, -1)[:, :columns] = matrix
    scales = _int8_scales(padded) if bits == 8 else _int4_scales(padded)
    scales[np.abs(scales) < np.finfo(np.float32).tiny] = 0  # its inverse would overflow
    return Blocks(bits, columns, _levels(padded, scales, bits), scales)


def _int8_scales(blocks: Floats) -> Floats:
    largest: Floats = np.abs(blocks).max(axis=2)
    return largest / np.float32(127)


def _int4_scales(blocks: Floats) -> Floats:
    """The extreme value is mapped to level 0, the one level without a counterpart above zero."""
    extremes = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[:, :, None], axis=2)
    return np.ascontiguousarray(extremes[:, :, 0] / np.float32(-8))


def _levels(blocks: Floats, scales: Floats, bits: int) -> Bytes:
    zero = 1 << (bits - 1)
    levels: Floats = np.rint(blocks * _inverse(scales)[:, :, None]) + np.float32(zero)
    return levels.clip(0, 2 * zero - 1).astype(np.uint8)


def _inverse(scales: Floats) -> Floats:
    """0 for a scale of 0."""
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)


def stack(parts: Sequence[Blocks]) -> Blocks:
    """The rows of all parts, in order; 4-bit parts are widened if another part has 8 bits."""
    same = {part.bits for part in parts}
    parts = list(parts) if len(same) == 1 else [part.widened() for part in parts]
    first = parts[0]
    assert {(p.columns, p.block_size) for p in parts} == {(first.columns, first.block_size)}
    levels = np.concatenate([part.levels for part in parts])
    scales = np.concatenate([part.scales for part in parts])
    if all(part.offsets is None for part in parts):
        return Blocks(first.bits, first.columns, levels, scales)
    offsets = [np.zeros_like(p.scales) if p.offsets is None else p.offsets for p in parts]
    return Blocks(first.bits, first.columns, levels, scales, np.concatenate(offsets))
