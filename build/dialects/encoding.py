"""How a projection's weights are stored at a precision: dense fp32, or blocks."""

from __future__ import annotations

import numpy as np

from build.architecture import Projection
from build.checkpoint import Checkpoint, Weight
from build.quantise import Blocks, Floats, Precision, quantise, stack

BLOCK_SIZE = 32


def encode(checkpoint: Checkpoint, projection: Projection, precision: Precision) -> Floats | Blocks:
    """The stacked rows of the projection's parts."""
    weights = [
        checkpoint.weight(name, (rows, projection.columns))
        for name, rows in zip(projection.parts, projection.rows, strict=True)
    ]
    if precision is Precision.FP32:
        return np.concatenate([weight.read() for weight in weights])
    return stack([_blocks(weight, precision) for weight in weights])


def _blocks(weight: Weight, precision: Precision) -> Blocks:
    if precision is Precision.GGUF and weight.read_blocks is not None:
        return weight.read_blocks()
    return quantise(weight.read(), 4 if precision is Precision.INT4 else 8, BLOCK_SIZE)


def bias(checkpoint: Checkpoint, projection: Projection) -> Floats | None:
    if not projection.biases:
        return None
    pairs = zip(projection.biases, projection.rows, strict=True)
    return np.concatenate([checkpoint.weight(name, (rows,)).read() for name, rows in pairs])
