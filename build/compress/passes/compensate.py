"""Rounding by rows in which each column compensates for the errors of those before it.

GPTQ (Frantar et al. 2022, arXiv:2210.17323) looks for the rounding of a weight that changes the product least
on typical inputs. Columns are rounded one after another, and the error of each is distributed over the
remaining columns by the correlation of the inputs: the inverse of X^T X. SmolLM2-135M, rotated and with one
scale per row, loses 0.45 % of perplexity this way, and 1.5 to 2 % with nearest rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from build.architecture.parts import Architecture, Projection
from build.checkpoint import Checkpoint
from build.compress.passes.smooth import calibration_windows
from build.quantise import Floats, Rows, row_scales
from build.reference import decoder as reference

# Windows of 512 tokens: with 3 the loss of perplexity is 1.1 %, with 12 0.45 %, with 20 no less.
_WINDOWS = 12
# Added to the diagonal, as a share of its mean: with few inputs X^T X is near singular.
_DAMPING = 0.01
_BLOCK = 64
_LEVELS = 127


def compensated(
    checkpoint: Checkpoint, architecture: Architecture, advance: Callable[[], None]
) -> dict[str, Rows]:
    """Each product's parts by name, rounded; `advance` is called after each layer of the calibration."""
    rounder = _Rounder(checkpoint, dict(_readers(architecture)))
    ids = calibration_windows(checkpoint.tokenizer.json, architecture.max_positions)[:_WINDOWS]
    reference.final_hidden(checkpoint, architecture, ids, advance, rounder.observe)
    return rounder.rows


def round_compensated(weight: Floats, inputs: Floats) -> Rows:
    """A weight [rows, columns] that is to be multiplied with inputs like these [count, columns]."""
    squares = (inputs.T @ inputs).astype(np.float64)
    # The most important columns are rounded first, and all others compensate; a stable sort, as there are
    # ties.
    order = np.argsort(-np.diag(squares), kind="stable")
    factor = _inverse_factor(squares[np.ix_(order, order)]).astype(np.float32)
    scales = row_scales(weight)
    levels = np.empty(weight.T.shape, np.int8)
    levels[order] = _levels(np.ascontiguousarray(weight.T[order]), scales, factor)
    return Rows(np.ascontiguousarray(levels.T), scales)


class _Rounder:
    """Rounds a product as soon as its inputs are known, so that those of one layer are held at a time."""

    def __init__(self, checkpoint: Checkpoint, readers: Mapping[str, Projection]) -> None:
        self._checkpoint = checkpoint
        self._readers = readers
        self.rows: dict[str, Rows] = {}

    def observe(self, name: str, values: Floats) -> None:
        if (product := self._readers.get(name)) is None:
            return
        weight = np.concatenate([self._checkpoint.weights[part].read() for part in product.parts])
        whole = round_compensated(weight, values.reshape(-1, product.columns))
        ends = np.cumsum(product.rows)
        for part, end, count in zip(product.parts, ends, product.rows, strict=True):
            at = slice(end - count, end)
            self.rows[part] = Rows(whole.levels[at], whole.scales[at])


def _readers(architecture: Architecture) -> Iterator[tuple[str, Projection]]:
    """The products by the names under which the reference shows what they read."""
    for layer in architecture.layers:
        yield layer.input_norm.weight, layer.attention.qkv
        yield layer.attention.output.parts[0], layer.attention.output
        yield layer.ffn_norm.weight, layer.ffn.inner
        yield layer.ffn.outer.parts[0], layer.ffn.outer
    yield architecture.final_norm.weight, architecture.head


def _inverse_factor(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper triangular U with U^T U the inverse of the damped squares."""
    size = len(squares)
    damping = _DAMPING * np.trace(squares) / size + np.finfo(np.float32).tiny
    lower = np.linalg.cholesky(squares[::-1, ::-1] + damping * np.eye(size))
    return np.ascontiguousarray(np.linalg.inv(lower)[::-1, ::-1])


def _levels(columns: Floats, scales: Floats, factor: Floats) -> NDArray[np.int8]:
    """Of the turned weight [columns, rows], which it uses up; in blocks, so that most work is products."""
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    levels = np.empty(columns.shape, np.int8)
    for start in range(0, len(columns), _BLOCK):
        end = min(start + _BLOCK, len(columns))
        errors = np.empty((end - start, columns.shape[1]), np.float32)
        for at in range(start, end):
            rounded = np.rint(columns[at] * inverse).clip(-_LEVELS, _LEVELS)
            levels[at] = rounded
            errors[at - start] = (columns[at] - rounded * scales) / factor[at, at]
            columns[at + 1 : end] -= factor[at, at + 1 : end, None] * errors[at - start]
        columns[end:] -= factor[start:end, end:].T @ errors
    return levels
