"""Sharing range between the outputs of norms and the weights of the products that read them.

SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): each channel of a norm is divided by a factor, in the norm's
weight, and the columns of the products are multiplied by it. The model computes the same at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from build.architecture.parts import Norm
from build.checkpoint import Checkpoint, Weight
from build.quantise import Floats

# The share of the range that the weights take over; 0.3 and 0.7 lose a little more.
STRENGTH = 0.5
_SMALLEST = np.float32(1e-6)

Pair = tuple[Norm, tuple[str, ...]]


class Peaks:
    """The largest magnitude of each channel that was observed, by the name it was observed under."""

    def __init__(self) -> None:
        self._of: dict[str, Floats] = {}

    def observe(self, name: str, values: Floats) -> None:
        self._of[name] = np.abs(values).max(axis=tuple(range(values.ndim - 1)))

    def __getitem__(self, norm: Norm) -> Floats:
        return self._of[norm.weight]


def rescaled(checkpoint: Checkpoint, pairs: Iterable[Pair], peaks: Peaks) -> Checkpoint:
    """Divides the output of each norm by factors, and multiplies the columns of the products that read it."""
    weights = dict(checkpoint.weights)
    for norm, products in pairs:
        factors = _factors(peaks[norm], [checkpoint.weights[product] for product in products])
        scales = dict.fromkeys(norm.tensors(), 1 / factors) | dict.fromkeys(products, factors)
        weights |= {name: _scaled(checkpoint.weights[name], by) for name, by in scales.items()}
    return replace(checkpoint, weights=weights)


def _factors(peaks: Floats, products: list[Weight]) -> Floats:
    """One factor for each channel, 1 in the geometric mean."""
    columns = np.max([np.abs(product.read()).max(axis=0) for product in products], axis=0)
    ratio = STRENGTH * np.log(np.maximum(peaks, _SMALLEST))
    ratio -= (1 - STRENGTH) * np.log(np.maximum(columns, _SMALLEST))
    factors: Floats = np.exp(ratio - ratio.mean()).astype(np.float32)
    return factors


def _scaled(weight: Weight, factors: Floats) -> Weight:
    """Blocks of the source do not hold the new values."""
    return Weight(weight.shape, partial(_product, weight.read, factors))


def _product(read: Callable[[], Floats], factors: Floats) -> Floats:
    return read() * factors
