"""Least squares in closed form, from sums over tokens, so that no more than a window's inputs are held."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from build.quantise import Floats

Doubles = NDArray[np.float64]


class Moments:
    """Sums over rows: of the products of inputs with inputs, and of inputs with targets."""

    def __init__(self, columns: int, targets: int = 0) -> None:
        self.inputs: Doubles = np.zeros((columns, columns))
        self.targets: Doubles = np.zeros((columns, targets))

    def add(self, inputs: Floats, targets: Floats | None = None) -> None:
        """Inputs [rows, columns] and, where there are any, targets [rows, targets]."""
        self.inputs += inputs.T @ inputs
        if targets is not None:
            self.targets += inputs.T @ targets


def ridge(inputs: Doubles, targets: Doubles, strength: float) -> Doubles:
    """X [columns, targets] with the least squares of A X - B, and of X times `strength`.

    Given A^T A and A^T B; the strength is a share of the mean of A^T A's diagonal.
    """
    penalty = strength * np.trace(inputs) / len(inputs) + np.finfo(np.float32).tiny
    solved: Doubles = np.linalg.solve(inputs + penalty * np.eye(len(inputs)), targets)
    return solved
