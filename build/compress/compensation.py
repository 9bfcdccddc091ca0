"""Rounding column by column, in which each column compensates for the errors of those before it.

GPTQ (Frantar et al. 2022, arXiv:2210.17323) looks for the rounding of a weight that changes the product least
on typical inputs X. Columns are rounded one after another, and the error of each is distributed over the
remaining columns by the correlation of the inputs: the inverse of X^T X.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from build.quantise import Floats

DAMPING = 0.01
_BLOCK = 64


@dataclass(frozen=True)
class Grid:
    """The values that a weight may take: whole numbers from `lowest` to `highest`, times a scale.

    `scales` are [groups, rows]; `groups` [columns] says which of them each column has.
    """

    scales: Floats
    groups: NDArray[np.intp]
    lowest: int
    highest: int


class Compensation:
    """How the columns of products with the same inputs make up for each other's errors.

    `squares` are X^T X [columns, columns]. The `damping` is added to their diagonal, as a share of its mean:
    with few inputs they are near singular.
    """

    def __init__(self, squares: NDArray[np.float64], damping: float = DAMPING) -> None:
        # The most important columns are rounded first, and all others compensate; a stable sort, as there are
        # ties.
        self._order = np.argsort(-np.diag(squares), kind="stable")
        turned = squares[np.ix_(self._order, self._order)]
        self._factor = _inverse_factor(turned, damping).astype(np.float32)

    def levels(self, weight: Floats, grid: Grid) -> NDArray[np.int8]:
        """The whole numbers [rows, columns] for a weight of that shape."""
        levels = np.empty(weight.T.shape, np.int8)
        columns = np.ascontiguousarray(weight.T[self._order])
        levels[self._order] = _levels(columns, grid, grid.groups[self._order], self._factor)
        return np.ascontiguousarray(levels.T)


def squares_of(inputs: Floats) -> NDArray[np.float64]:
    """X^T X of inputs [count, columns]."""
    return (inputs.T @ inputs).astype(np.float64)


def _inverse_factor(squares: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    """Upper triangular U with U^T U the inverse of the damped squares."""
    size = len(squares)
    added = damping * np.trace(squares) / size + np.finfo(np.float32).tiny
    lower = np.linalg.cholesky(squares[::-1, ::-1] + added * np.eye(size))
    return np.ascontiguousarray(np.linalg.inv(lower)[::-1, ::-1])


def _levels(columns: Floats, grid: Grid, groups: NDArray[np.intp], factor: Floats) -> NDArray[np.int8]:
    """Of the turned weight [columns, rows], which it uses up; in blocks, so that most work is products."""
    scales = grid.scales
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    levels = np.empty(columns.shape, np.int8)
    for start in range(0, len(columns), _BLOCK):
        end = min(start + _BLOCK, len(columns))
        errors = np.empty((end - start, columns.shape[1]), np.float32)
        for at in range(start, end):
            group = groups[at]
            rounded = np.rint(columns[at] * inverse[group]).clip(grid.lowest, grid.highest)
            levels[at] = rounded
            errors[at - start] = (columns[at] - rounded * scales[group]) / factor[at, at]
            columns[at + 1 : end] -= factor[at, at + 1 : end, None] * errors[at - start]
        columns[end:] -= factor[start:end, end:].T @ errors
    return levels
