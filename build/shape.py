"""The dimensions of a model as its authors publish them, from which its needs are estimated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

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

    `max_positions` applies to source and answer; `gated`: the feed-forward has two products in, one of
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
