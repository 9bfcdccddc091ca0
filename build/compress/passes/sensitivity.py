"""Rounding to a budget of bits: products that lose most in 4 bits get 8.

Every product is rounded to 4 bits alone (by gptq), and the divergence of the model's distributions from the
unrounded model's is its sensitivity. Then products get 8 bits, those first whose divergence is largest for
the bytes that it takes, as long as the mean of all weights stays within the budget. In SmolLM2-135M the
products of queries, keys and values have 12 % of the weights and 43 % of the divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from build.architecture import describe, describe_model
from build.architecture.parts import Architecture, Layer
from build.checkpoint import Checkpoint, Weight
from build.compress.calibration import POSITIONS, reading_cost, windows
from build.compress.passes import gptq
from build.compress.products import Product, products
from build.compress.rounded import with_blocks
from build.compress.step import Cost, Kind, Tools
from build.errors import BadInput, Unsupported
from build.quantise import Blocks, Floats, Ids
from build.reference import decoder as reference
from build.reference.parts import Parts

KIND = Kind.QUANTISE
Doubles = NDArray[np.float64]
_LOW, _HIGH = 4, 8
# Positions whose logits are held at a time.
_PIECE = 64


@dataclass(frozen=True)
class Options:
    """`bits` are the mean of all products' weights, without their scales: those of blocks of 32 add 1.

    `windows` of 512 tokens are read to round, and `scored` of them to measure divergences.
    """

    bits: float
    block: int = 32
    windows: int = 12
    scored: int = 2

    def __post_init__(self) -> None:
        if not _LOW <= self.bits <= _HIGH:
            raise BadInput(f"bits: {self.bits}, must be from {_LOW} to {_HIGH}")
        if self.scored < 1:
            raise BadInput(f"scored: {self.scored}, must be at least 1")
        self.rounding()

    def rounding(self) -> gptq.Options:
        """Of each product alone."""
        return gptq.Options(_LOW, self.block, (), self.windows)


@dataclass(frozen=True)
class Sensitivity:
    """A product with its divergence in 4 bits, in nats a token, and the bits that it gets."""

    product: Product
    divergence: float
    bits: int = _LOW


def require(checkpoint: Checkpoint, _options: Options) -> None:
    """Unsupported for an encoder-decoder."""
    model = describe_model(checkpoint.config)
    if not isinstance(model, Architecture):
        raise Unsupported(f"sensitivity: {model.family} is an encoder-decoder: take gptq")


def cost(checkpoint: Checkpoint, options: Options) -> Cost:
    """Of the rounding, and of a model from each product on."""
    architecture = describe(checkpoint.config)
    rounding = gptq.cost(checkpoint, options.rounding())
    reading, made = reading_cost(architecture, options.scored), list(products(architecture))
    tokens = options.scored * min(POSITIONS, architecture.max_positions)
    heads = len(made) * tokens * made[-1].weights
    states = 4 * len(made) * tokens * architecture.hidden_size
    pieces = 16 * _PIECE * architecture.vocab_size + 4 * made[-1].weights
    return Cost(
        rounding.operations + len(made) * reading.operations / 2 + heads,
        rounding.memory + reading.memory + states + pieces,
    )


def run(checkpoint: Checkpoint, options: Options, tools: Tools) -> Checkpoint:
    """The checkpoint with blocks of 4 or 8 bits for every product; the table is noted."""
    rounded = gptq.rounded_products(checkpoint, options.rounding(), tools)
    found = fill(_measured(checkpoint, rounded, options, tools), options.bits)
    tools.note({"sensitivity": [_row(each) for each in found]})
    pairs = zip(found, rounded, strict=True)
    return with_blocks(
        checkpoint, [_chosen(checkpoint, each, blocks, options) for each, (_, blocks) in pairs]
    )


def _chosen(
    checkpoint: Checkpoint, found: Sensitivity, blocks: Blocks, options: Options
) -> tuple[Product, Blocks]:
    if found.bits == _LOW:
        return found.product, blocks
    return found.product, gptq.in_eight(checkpoint, found.product, options.block)


def _row(found: Sensitivity) -> dict[str, str | float | int]:
    return {
        "product": found.product.name,
        "weights": found.product.weights,
        "kl": round(found.divergence, 6),
        "bits": found.bits,
    }


def fill(found: Sequence[Sensitivity], bits: float) -> list[Sensitivity]:
    """The same in their order, with 8 bits for those that lose most for their size, to a mean of `bits`."""
    spare = (bits - _LOW) * sum(each.product.weights for each in found)
    high: set[int] = set()
    for index in sorted(range(len(found)), key=lambda i: -found[i].divergence / found[i].product.weights):
        added = (_HIGH - _LOW) * found[index].product.weights
        if found[index].divergence > 0 and added <= spare:
            spare -= added
            high.add(index)
    return [replace(each, bits=_HIGH if i in high else _LOW) for i, each in enumerate(found)]


def _measured(
    checkpoint: Checkpoint, rounded: Sequence[tuple[Product, Blocks]], options: Options, tools: Tools
) -> list[Sensitivity]:
    architecture = describe(checkpoint.config)
    ids = windows(tools.texts, checkpoint.tokenizer.json, architecture.max_positions, options.scored)
    steps = len(architecture.layers) + sum(1 for _ in _pieces(ids.size))
    advance = tools.stage("sensitivity", steps)
    values = divergences(checkpoint, architecture, rounded, ids, advance)
    return [Sensitivity(product, value) for (product, _), value in zip(rounded, values, strict=True)]


def divergences(
    checkpoint: Checkpoint,
    architecture: Architecture,
    rounded: Sequence[tuple[Product, Blocks]],
    ids: Ids,
    advance: Callable[[], None],
) -> list[float]:
    """The mean KL divergence from the model of that with each product alone rounded; the head is the last.

    `advance` is called after each layer and after each piece of positions.
    """
    *inner, (head, head_blocks) = rounded
    assert head.kind == "head"
    model = reference.Decoder(Parts(checkpoint), architecture)
    states = [model.embed(ids)]
    for layer in architecture.layers:
        states = list(_through(checkpoint, architecture, layer, inner, states))
        advance()
    hidden = [model.norm(state, architecture.final_norm).reshape(ids.size, -1) for state in states]
    weight = reference.head_weight(checkpoint, architecture)
    heads = [*((each, weight) for each in hidden[1:]), (hidden[0], head_blocks.dequantise())]
    sums = np.zeros(len(rounded))
    for piece in _pieces(ids.size):
        others = (each[piece] @ matrix.T for each, matrix in heads)
        sums += _divergences(hidden[0][piece] @ weight.T, others)
        advance()
    return list(map(float, sums / ids.size))


def _through(
    checkpoint: Checkpoint,
    architecture: Architecture,
    layer: Layer,
    rounded: Sequence[tuple[Product, Blocks]],
    states: Sequence[Floats],
) -> Iterator[Floats]:
    """All states after the layer, the unrounded model's first, and those of each of its products rounded."""
    held = _held(checkpoint, list(layer.tensors()))
    plain = reference.Decoder(Parts(held), architecture)
    yield from (plain.layer(layer, state) for state in states)
    for product, blocks in rounded:
        if product.projection.parts[0] in layer.tensors():
            changed = with_blocks(held, [(product, blocks)])
            yield reference.Decoder(Parts(changed), architecture).layer(layer, states[0])


def _held(checkpoint: Checkpoint, names: Sequence[str]) -> Checkpoint:
    """The checkpoint with these weights in memory: many states are multiplied with them."""
    values = {name: checkpoint.weights[name].read() for name in names}
    held = {name: Weight(each.shape, partial(_itself, each)) for name, each in values.items()}
    return replace(checkpoint, weights={**checkpoint.weights, **held})


def _itself(values: Floats) -> Floats:
    return values


def _pieces(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _PIECE, count)) for start in range(0, count, _PIECE))


def _divergences(expected: Floats, others: Iterable[Floats]) -> Doubles:
    """The sum over positions of KL(softmax(expected) || softmax(other)) for each; all [positions, vocab]."""
    sums = _log_sums(expected)
    shares = np.exp(expected - sums[:, None].astype(np.float32))
    found = []
    for other in others:
        # Differences first: they are small, and fp32 adds them up with small errors.
        apart = np.einsum("pv,pv->p", shares, expected - other)
        found.append(float((apart + _log_sums(other) - sums).sum()))
    return np.array(found)


def _log_sums(logits: Floats) -> Doubles:
    top = logits.max(axis=-1)
    sums: Doubles = np.log(np.exp(logits - top[:, None]).sum(axis=-1, dtype=np.float64)) + top
    return sums
