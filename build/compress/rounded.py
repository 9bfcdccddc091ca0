"""A checkpoint whose products are rounded: the blocks of each, and how many bits its weights take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from build.architecture import Model, describe_model
from build.architecture.parts import Architecture
from build.architecture.views import HEAD
from build.checkpoint import Checkpoint, Weight
from build.compress.products import Product, products
from build.errors import Unsupported
from build.quantise import Blocks

_FULL = 32


@dataclass(frozen=True)
class Bits:
    """Mean bits of the weights of all products: of their levels alone, and as an engine stores them, with
    fp32 scales and offsets of their blocks.
    """

    levels: float
    stored: float


def of_blocks(weight: Weight, blocks: Blocks) -> Weight:
    """The weight, rounded."""
    return Weight(weight.shape, blocks.dequantise, lambda: blocks)


def with_blocks(checkpoint: Checkpoint, found: Iterable[tuple[Product, Blocks]]) -> Checkpoint:
    """The checkpoint with the stacked rows of so many products as these blocks.

    A tied head in 4 bits is separated from the embedding, which stays as it is; one in 8 bits stays tied.
    """
    for product, blocks in found:
        names = product.projection.parts
        if product.kind == "head" and blocks.bits < 8:
            checkpoint = untied(checkpoint)
            names = describe_model(checkpoint.config).head.parts
        ends = np.cumsum(product.projection.rows)
        weights = dict(checkpoint.weights)
        for name, end, count in zip(names, ends, product.projection.rows, strict=True):
            weights[name] = of_blocks(weights[name], blocks.take_rows(np.arange(end - count, end)))
        checkpoint = replace(checkpoint, weights=weights)
    return checkpoint


def untied(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a head of its own, equal to the embedding where it was that.

    Unsupported for an encoder-decoder: some scale their inputs otherwise then.
    """
    model = describe_model(checkpoint.config)
    if not is_tied(model):
        return checkpoint
    if not isinstance(model, Architecture):
        raise Unsupported("head: is the embedding of an encoder-decoder: keep it in 8 bits")
    weights = {**checkpoint.weights, HEAD: checkpoint.weights[model.embedding]}
    config = {**checkpoint.config, "tie_word_embeddings": False}
    return replace(checkpoint, weights=weights, config=config)


def is_tied(model: Model) -> bool:
    """Whether the head is the embedding."""
    decoder = model if isinstance(model, Architecture) else model.decoder
    return model.head.parts == (decoder.embedding,)


def mean_bits(checkpoint: Checkpoint) -> Bits:
    """Reads the blocks. An engine widens all parts of a product to 8 bits if one of them has those."""
    levels = stored = weights = 0.0
    for product in products(describe_model(checkpoint.config)):
        bits, added = _bits(checkpoint, product)
        levels += bits * product.weights
        stored += bits * product.weights + added
        weights += product.weights
    return Bits(levels / weights, stored / weights)


def _bits(checkpoint: Checkpoint, product: Product) -> tuple[int, int]:
    """Of a weight of the product, and of all its scales and offsets."""
    bits, added = 0, 0
    for name in product.projection.parts:
        read = checkpoint.weights[name].read_blocks
        if read is None:
            bits = _FULL
            continue
        blocks = read()
        bits = max(bits, blocks.bits)
        added += 32 * blocks.scales.size * (1 if blocks.offsets is None else 2)
    return bits, added
