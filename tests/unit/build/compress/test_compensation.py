"""GPTQ's factor and blocks compute what its definition says: a column at a time, a new inverse for each."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from build.compress.compensation import Compensation, Grid, squares_of
from build.quantise import Floats


def by_definition(weight: Floats, squares: NDArray[np.float64], grid: Grid, damping: float) -> Floats:
    """Each column's error moved to those left, by the inverse of what is left of the damped squares."""
    left = np.argsort(-np.diag(squares), kind="stable").tolist()
    damped = squares + damping * np.trace(squares) / len(squares) * np.eye(len(squares))
    values, found = weight.astype(np.float64), np.zeros(weight.shape)
    while left:
        column, inverse = left[0], np.linalg.inv(damped[np.ix_(left, left)])
        scales = grid.scales[grid.groups[column]].astype(np.float64)
        rounded = np.rint(values[:, column] / scales).clip(grid.lowest, grid.highest) * scales
        error = (values[:, column] - rounded) / inverse[0, 0]
        values[:, left] -= error[:, None] * inverse[0]
        found[:, column] = rounded
        left.pop(0)
    return found.astype(np.float32)


@pytest.mark.parametrize("columns", [16, 64, 100])
@pytest.mark.parametrize("damping", [0.01, 0.3])
def test_the_levels_are_those_of_the_definition(columns: int, damping: float) -> None:
    random = np.random.default_rng(columns)
    inputs = random.standard_normal((200, 40)) @ random.standard_normal((40, columns))
    weight = random.standard_normal((12, columns)).astype(np.float32)
    squares = squares_of(inputs.astype(np.float32))
    groups = np.arange(columns) // 16
    scales = random.uniform(0.2, 0.4, (groups[-1] + 1, 12)).astype(np.float32)
    grid = Grid(scales, groups, -8, 7)
    levels = Compensation(squares, damping).levels(weight, grid)
    found = levels * scales[groups].T
    expected = by_definition(weight, squares, grid, damping)
    # A value in the middle of two levels may fall to either in fp32.
    assert np.mean(found == pytest.approx(expected, rel=1e-6)) > 0.99
    assert levels.min() >= -8
    assert levels.max() <= 7
    nearest = np.rint(weight / scales[groups].T).clip(-8, 7)
    assert np.mean(levels != nearest) > 0.1
