"""Weights with some of their rows, or some of their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from build.checkpoint import Checkpoint, Weight
from build.quantise import Blocks, Floats

Order = NDArray[np.intp]


def taken_rows(weight: Weight, order: Order) -> Weight:
    """The rows of these numbers, and of the blocks of the source the same rows: carrying them stays exact."""
    read_blocks = weight.read_blocks and partial(_block_rows, weight.read_blocks, order)
    return Weight((len(order), *weight.shape[1:]), partial(_rows, weight.read, order), read_blocks)


def taken_columns(weight: Weight, order: Order) -> Weight:
    """The columns of these numbers; blocks, which lie along the columns, are lost."""
    return Weight((weight.shape[0], len(order)), partial(_columns, weight.read, order))


def fixed(values: Floats) -> Weight:
    """A weight of these values."""
    return Weight(values.shape, lambda: values)


def in_memory(checkpoint: Checkpoint, names: Iterable[str]) -> Checkpoint:
    """The checkpoint with these weights read, for what uses them several times."""
    read = {name: fixed(checkpoint.weights[name].read()) for name in names}
    return replace(checkpoint, weights={**checkpoint.weights, **read})


def _rows(read: Callable[[], Floats], order: Order) -> Floats:
    return read()[order]


def _block_rows(read: Callable[[], Blocks], order: Order) -> Blocks:
    return read().take_rows(order)


def _columns(read: Callable[[], Floats], order: Order) -> Floats:
    return np.ascontiguousarray(read()[:, order])
