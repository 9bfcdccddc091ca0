"""The dimensions of a model as its authors publish them: what it needs can be estimated from these alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from build.errors import BadInput


class Positions(Enum):
    """How order enters: rotated queries and keys, a learned row, a fixed wave, or a bias by distance."""

    ROTARY = "rotary"
    LEARNED = "learned"
    SINUSOIDAL = "sinusoidal"
    RELATIVE = "relative"


@dataclass(frozen=True)
class Shape:
    """`layers` are the decoder's; `encoder_layers` is 0 for a decoder alone, and an encoder is as wide.

    `max_positions` holds for source and answer alike; `gated`: the feed-forward has two products in, one of
    them a gate; `tied`: the head is the embedding; `rotary_tables`: of so many frequencies; `wide`: its
    activations leave the range of float16.
    """

    parameters: int
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    positions: Positions
    encoder_layers: int = 0
    gated: bool = False
    tied: bool = True
    rotary_tables: int = 1
    wide: bool = False

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise BadInput(f"shape.heads: {self.heads}, must be a multiple of kv_heads, {self.kv_heads}")


_FLAGS = ("gated", "tied", "wide")


def parse_shape(table: Any) -> Shape:
    """Strict, as the recipe is: BadInput names the key."""
    if not isinstance(table, Mapping):
        raise BadInput(f"shape: {table!r}, must be a table")
    known = [field.name for field in fields(Shape)]
    for key in table:
        if key not in known:
            raise BadInput(f"shape.{key}: unknown key; known are {', '.join(known)}")
    for key in known[: known.index("encoder_layers")]:
        if key not in table:
            raise BadInput(f"shape.{key}: missing")
    return Shape(**{key: _value(key, value) for key, value in table.items()})


def _value(key: str, value: Any) -> Any:
    if key in _FLAGS:
        if not isinstance(value, bool):
            raise BadInput(f"shape.{key}: {value!r}, must be true or false")
        return value
    if key == "positions":
        return _positions(value)
    least = 0 if key == "encoder_layers" else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"shape.{key}: {value!r}, must be a whole number of at least {least}")
    return value


def _positions(value: Any) -> Positions:
    try:
        return Positions(value)
    except ValueError as error:
        known = ", ".join(member.value for member in Positions)
        raise BadInput(f"shape.positions: {value!r}, must be one of {known}") from error
