"""Tensors that a model shares: files of different age keep one or another of their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from build.checkpoint import Checkpoint
from build.errors import Unsupported


def joined(checkpoint: Checkpoint, name: str, copies: Sequence[str]) -> Checkpoint:
    """The tensor under `name` alone, whichever of the names it has; Unsupported where two of them differ."""
    present = [other for other in (name, *copies) if other in checkpoint.weights]
    for other in present[1:]:
        first, second = (checkpoint.weights[key] for key in (present[0], other))
        if first.shape != second.shape or not np.array_equal(first.read(), second.read()):
            raise Unsupported(
                f"checkpoint: {other} differs from {present[0]}: models that have the two apart are not"
                " supported"
            )
    weights = without(checkpoint, present).weights
    kept = {name: checkpoint.weights[present[0]]} if present else {}
    return replace(checkpoint, weights={**weights, **kept})


def without(checkpoint: Checkpoint, names: Sequence[str]) -> Checkpoint:
    """What is left of the weights."""
    weights = {key: weight for key, weight in checkpoint.weights.items() if key not in names}
    return replace(checkpoint, weights=weights)
