"""Rotation of the residual stream, so that products may round their inputs by a scale known beforehand.

A norm that divides by the root mean square commutes with an orthogonal map. So the stream may be rotated as
a whole (Ashkboos et al. 2024, QuaRot, arXiv:2404.00456, after SliceGPT, arXiv:2401.15024): what writes to it
is turned, what reads it is turned back, each norm's weight goes into the products that read it, and the model
computes the same. A norm then gives rows of root mean square 1, with outliers spread over all channels: in
SmolLM2-135M no value is above 5.3, be it the first token's, whose values reach thousands. One scale, the same
for all rows, rounds them to 8 bits: no row depends on its neighbours, and none is looked at first.

The values of each attention head are turned too, and the product that reads them turned back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from build.architecture import describe, describe_model
from build.architecture.parts import Architecture, Layer, Norm, NormKind, Projection
from build.checkpoint import Checkpoint, Weight
from build.compress.rounded import untied
from build.compress.step import Cost, Kind, Tools
from build.errors import Unsupported
from build.quantise import Floats

KIND = Kind.TRANSFORM
_MOST_HADAMARD = 64


@dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


def require(checkpoint: Checkpoint, _options: Options) -> None:
    """Unsupported names what cannot be rotated."""
    model = describe_model(checkpoint.config)
    if not isinstance(model, Architecture):
        raise Unsupported(f"rotate: {model.family} is an encoder-decoder: take smooth")
    if obstacle := _obstacle(model):
        raise Unsupported(f"rotate: {obstacle}: take smooth")


def cost(_checkpoint: Checkpoint, _options: Options) -> Cost:
    """None: each weight is turned whenever it is read."""
    return Cost(0.0, 0)


def run(checkpoint: Checkpoint, _options: Options, _tools: Tools) -> Checkpoint:
    """The same model over a rotated stream, whose head is no longer tied."""
    return rotate(checkpoint, describe(checkpoint.config))[0]


def rotatable(architecture: Architecture) -> bool:
    """RMS norms before each block and none after it."""
    return _obstacle(architecture) is None


def _obstacle(architecture: Architecture) -> str | None:
    for layer in architecture.layers:
        if behind := layer.output_norm or layer.ffn_output_norm:
            return f"{behind.weight} scales channels within the stream"
    for norm in _norms(architecture):
        if norm.kind is not NormKind.RMS:
            return f"{norm.weight} is of a norm that subtracts the mean"
    return None


def _norms(architecture: Architecture) -> Iterator[Norm]:
    for layer in architecture.layers:
        yield from layer.norms()
    yield architecture.final_norm


def rotate(checkpoint: Checkpoint, architecture: Architecture) -> tuple[Checkpoint, Architecture]:
    """The same model over a rotated stream; a rotated one is given back as it is.

    A tied head is separated from the embedding, which no norm scales.
    """
    assert rotatable(architecture)
    if _is_rotated(checkpoint, architecture):
        return checkpoint, architecture
    checkpoint = untied(checkpoint)
    architecture, weights = describe(checkpoint.config), dict(checkpoint.weights)
    stream, head = Rotation(architecture.hidden_size), Rotation(architecture.head_dim)
    _change(weights, architecture.embedding, stream.of_columns)
    if architecture.positions:
        _change(weights, architecture.positions.table, stream.of_columns)
    for layer in architecture.layers:
        _rotate_layer(weights, layer, stream, head)
    _read_side(weights, architecture.final_norm, architecture.head, stream)
    return replace(checkpoint, weights=weights), architecture


def spread(architecture: Architecture) -> Iterator[Projection]:
    """The products that read a norm's output, in a rotated model."""
    for layer in architecture.layers:
        yield layer.attention.qkv
        yield layer.ffn.inner
    yield architecture.head


@dataclass(frozen=True)
class Rotation:
    """x -> x R, R orthogonal [size, size]: signs, then a Hadamard and a cosine matrix as a Kronecker product.

    Every entry of R is small, so no channel keeps more than its share. R is the same on every machine.
    """

    size: int

    def of_columns(self, values: Floats) -> Floats:
        """On the last axis, whose length is a multiple of the size."""
        hadamard, cosines = self._factors
        rows = (values.reshape(-1, self.size) * self._signs).reshape(-1, len(hadamard), len(cosines))
        turned: Floats = hadamard @ (rows @ cosines)
        return turned.reshape(values.shape)

    def of_rows(self, values: Floats) -> Floats:
        """On the first axis."""
        return np.ascontiguousarray(self.of_columns(np.ascontiguousarray(values.T)).T)

    @cached_property
    def _signs(self) -> Floats:
        bits = hashlib.shake_256(b"halimede").digest(self.size)
        return np.where(np.frombuffer(bits, np.uint8) & 1, 1, -1).astype(np.float32)

    @cached_property
    def _factors(self) -> tuple[Floats, Floats]:
        count = min(self.size & -self.size, _MOST_HADAMARD)
        return _hadamard(count).astype(np.float32), _cosines(self.size // count).astype(np.float32)


def _hadamard(size: int) -> NDArray[np.float64]:
    """Sylvester's, symmetric and orthonormal; the size is a power of two."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    matrix /= np.sqrt(size)
    return matrix


def _cosines(size: int) -> NDArray[np.float64]:
    """The discrete cosine transform, orthonormal."""
    at = np.arange(size)
    matrix: NDArray[np.float64] = np.cos(np.pi * (2 * at[:, None] + 1) * at / (2 * size))
    matrix *= np.sqrt(2 / size)
    matrix[:, 0] /= np.sqrt(2)
    return matrix


def _is_rotated(checkpoint: Checkpoint, architecture: Architecture) -> bool:
    """Whether all norms are ones, as those of no trained model are."""
    if architecture.tied_head:
        return False
    return all(np.all(checkpoint.weights[norm.weight].read() == 1) for norm in _norms(architecture))


def _rotate_layer(weights: dict[str, Weight], layer: Layer, stream: Rotation, head: Rotation) -> None:
    attention, ffn = layer.attention, layer.ffn
    _read_side(weights, layer.input_norm, attention.qkv, stream)
    _read_side(weights, layer.ffn_norm, ffn.inner, stream)
    for product in (attention.output, ffn.outer):
        for name in (*product.parts, *product.biases):
            _change(weights, name, stream.of_rows)
    values = [names[2] for names in (attention.qkv.parts, attention.qkv.biases) if names]
    for name in values:
        _change(weights, name, partial(_of_heads, head))
    _change(weights, attention.output.parts[0], head.of_columns)


def _of_heads(rotation: Rotation, values: Floats) -> Floats:
    """On the rows of each head alone."""
    heads = values.reshape(len(values) // rotation.size, rotation.size, -1)
    turned = rotation.of_columns(np.ascontiguousarray(heads.transpose(0, 2, 1)))
    return np.ascontiguousarray(turned.transpose(0, 2, 1)).reshape(values.shape)


def _read_side(weights: dict[str, Weight], norm: Norm, product: Projection, stream: Rotation) -> None:
    """The norm's weight goes into the product, which reads the rotated stream."""
    scale = weights[norm.weight]
    for name in product.parts:
        _change(weights, name, partial(_read_turned, stream, scale.read))
    _change(weights, norm.weight, np.ones_like)


def _read_turned(stream: Rotation, scale: Callable[[], Floats], values: Floats) -> Floats:
    return stream.of_columns(values * scale())


def _change(weights: dict[str, Weight], name: str, change: Callable[[Floats], Floats]) -> None:
    """When it is read; blocks of the source do not hold the new values."""
    weight = weights[name]
    weights[name] = Weight(weight.shape, partial(_changed, weight.read, change))


def _changed(read: Callable[[], Floats], change: Callable[[Floats], Floats]) -> Floats:
    return change(read())
