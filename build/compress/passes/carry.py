"""Carrying: the source's own blocks are kept as they are, which loses nothing.

What a GGUF file holds as Q4_0, Q4_1 or Q8_0 is on a grid already; rounding it again to another grid costs
SmolLM2-135M 12 to 22 % of perplexity in 4 bits. Products that have no blocks are rounded to 8 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from build.architecture import describe_model
from build.checkpoint import Checkpoint
from build.compress.products import products
from build.compress.rounded import of_blocks
from build.compress.step import Cost, Kind, Tools
from build.dialects.encoding import GGUF_BLOCK_SIZE
from build.errors import BadInput
from build.quantise import quantise

KIND = Kind.QUANTISE


@dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


def require(checkpoint: Checkpoint, _options: Options) -> None:
    """BadInput where no product has blocks."""
    names = _parts(checkpoint)
    if len(lacking(checkpoint)) == len(names):
        raise BadInput(
            f"carry: {names[0]} and all other products are not in blocks of Q4_0, Q4_1 or Q8_0, or an earlier"
            " step has changed them: take gptq"
        )


def cost(checkpoint: Checkpoint, _options: Options) -> Cost:
    """Of the products that are rounded."""
    sizes = [_size(checkpoint, name) for name in lacking(checkpoint)]
    return Cost(4.0 * sum(sizes), sum(sizes) + 12 * max(sizes, default=0))


def run(checkpoint: Checkpoint, _options: Options, tools: Tools) -> Checkpoint:
    """The checkpoint with blocks for every product."""
    names = lacking(checkpoint)
    advance = tools.stage("carry", len(names))
    weights = dict(checkpoint.weights)
    for name in names:
        weights[name] = of_blocks(weights[name], quantise(weights[name].read(), 8, GGUF_BLOCK_SIZE))
        advance()
    if names:
        tools.note({"rounded to 8 bits": names})
    return replace(checkpoint, weights=weights)


def lacking(checkpoint: Checkpoint) -> list[str]:
    """The parts of products that have no blocks."""
    return [name for name in _parts(checkpoint) if checkpoint.weights[name].read_blocks is None]


def _parts(checkpoint: Checkpoint) -> list[str]:
    model = describe_model(checkpoint.config)
    return [name for product in products(model) for name in product.projection.parts]


def _size(checkpoint: Checkpoint, name: str) -> int:
    return math.prod(checkpoint.weights[name].shape)
