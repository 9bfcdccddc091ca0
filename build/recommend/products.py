"""The matrix products of a model, from its published dimensions: what is stored, read and multiplied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from build.dialects.encoding import Role
from build.shape import Positions, Shape


@dataclass(frozen=True)
class Product:
    """`count` weights [rows, columns]."""

    rows: int
    columns: int
    role: Role
    count: int

    @property
    def weights(self) -> int:
        return self.rows * self.columns * self.count


def head(shape: Shape) -> Product:
    return Product(shape.vocab_size, shape.hidden_size, Role.SENSITIVE, 1)


def answering(shape: Shape) -> list[Product]:
    """What every token of an answer passes through, but for the head."""
    parts = _self_attention(shape, shape.layers) + _feed_forward(shape, shape.layers)
    if shape.encoder_layers:
        inner = shape.heads * shape.head_dim
        parts.append(Product(inner, shape.hidden_size, Role.ROBUST, shape.layers))
        parts.append(Product(shape.hidden_size, inner, Role.ROBUST, shape.layers))
    return parts


def reading(shape: Shape) -> list[Product]:
    """What every token of a prompt passes through: the encoder, where there is one, and the cross keys."""
    if not shape.encoder_layers:
        return answering(shape)
    cross = 2 * shape.heads * shape.head_dim
    layers = shape.encoder_layers
    return [
        *_self_attention(shape, layers),
        *_feed_forward(shape, layers),
        Product(cross, shape.hidden_size, Role.SENSITIVE, shape.layers),
    ]


def stored(shape: Shape) -> list[Product]:
    """Every product once."""
    encoder = reading(shape) if shape.encoder_layers else []
    return [*encoder, *answering(shape), head(shape)]


def table_values(shape: Shape) -> int:
    """Numbers in the tables that are looked up: positions, and cosines and sines."""
    sides = 2 if shape.encoder_layers else 1
    if shape.positions is Positions.ROTARY:
        return shape.rotary_tables * shape.max_positions * shape.head_dim
    if shape.positions is Positions.LEARNED:
        return sides * shape.max_positions * shape.hidden_size
    return shape.max_positions * shape.hidden_size if shape.positions is Positions.SINUSOIDAL else 0


def embedding_values(shape: Shape) -> int:
    return shape.vocab_size * shape.hidden_size


def weights(products: Iterable[Product]) -> int:
    return sum(product.weights for product in products)


def _self_attention(shape: Shape, layers: int) -> list[Product]:
    inner = shape.heads * shape.head_dim
    packed = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    return [
        Product(packed, shape.hidden_size, Role.SENSITIVE, layers),
        Product(shape.hidden_size, inner, Role.ROBUST, layers),
    ]


def _feed_forward(shape: Shape, layers: int) -> list[Product]:
    inner = shape.intermediate_size * (2 if shape.gated else 1)
    return [
        Product(inner, shape.hidden_size, Role.ROBUST, layers),
        Product(shape.hidden_size, shape.intermediate_size, Role.SENSITIVE, layers),
    ]
