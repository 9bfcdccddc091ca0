"""How a projection's weights are stored at a precision: dense fp32, or blocks.

Rounding every weight to 4 bits raised the perplexity of SmolLM2-135M by 35 %. Three products do the
most harm and stay in 8 bits at int4: the head, the product that makes v, and the one back from the
feed-forward, whose inputs have the largest outliers. That leaves 10 %, and 9 % once smoothed.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from build.architecture.parts import Projection
from build.checkpoint import Checkpoint, Weight
from build.quantise import Blocks, Floats, Precision, quantise, stack

# MatMulNBits rounds a product's inputs by the same blocks. 8-bit blocks of 64 cost SmolLM2-135M no
# perplexity that shows, and a decode step takes a tenth to a fifth less time than with 32; 128 are faster
# still by 5 %, but lose 0.4 %. GGUF files have blocks of 32, and the parts of a product must agree.
BLOCK_SIZES = {4: 32, 8: 64}
GGUF_BLOCK_SIZE = 32


class Role(Enum):
    """What rounding a product costs: at int4, SENSITIVE ones keep 8 bits."""

    SENSITIVE = "sensitive"
    ROBUST = "robust"


def encode(
    checkpoint: Checkpoint, projection: Projection, precision: Precision, role: Role
) -> Floats | Blocks:
    """The stacked rows of the projection's parts, as the precision stores them."""
    if precision in (Precision.FP32, Precision.FP16):
        return stacked(checkpoint, projection)
    bits = 4 if precision is Precision.INT4 and role is Role.ROBUST else 8
    return stack([_blocks(weight, precision, bits) for weight in _weights(checkpoint, projection)])


def stacked(checkpoint: Checkpoint, projection: Projection) -> Floats:
    """The stacked rows of the projection's parts, unrounded."""
    return np.concatenate([weight.read() for weight in _weights(checkpoint, projection)])


def _weights(checkpoint: Checkpoint, projection: Projection) -> list[Weight]:
    rows = zip(projection.parts, projection.rows, strict=True)
    return [checkpoint.weight(name, (count, projection.columns)) for name, count in rows]


def _blocks(weight: Weight, precision: Precision, bits: int) -> Blocks:
    if precision is not Precision.GGUF:
        return quantise(weight.read(), bits, BLOCK_SIZES[bits])
    if weight.read_blocks is not None:
        return weight.read_blocks()
    return quantise(weight.read(), bits, GGUF_BLOCK_SIZE)


def bias(checkpoint: Checkpoint, projection: Projection) -> Floats | None:
    """The stacked biases of the projection's parts; None where it has none."""
    if not projection.biases:
        return None
    pairs = zip(projection.biases, projection.rows, strict=True)
    return np.concatenate([checkpoint.weight(name, (rows,)).read() for name, rows in pairs])
