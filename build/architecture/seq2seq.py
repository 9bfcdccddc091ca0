"""The parts of an encoder-decoder, in addition to those of a decoder alone.

    memory = encoder(source)                    once for a request
    logits = head(decoder(target, memory))      a token at a time

Both sides are a Stack. Where `norm_first`, a part of a layer is x += part(norm(x)) and the stack ends in a
norm; else it is x = norm(x + part(x)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from build.architecture.parts import Attention, FeedForward, Norm, Positions, Projection, Shapes


@dataclass(frozen=True)
class Sinusoids:
    """Position p adds row p of a fixed table of `rows`; `build.architecture.positions` computes it."""

    rows: int


@dataclass(frozen=True)
class RelativeBias:
    """A bias on every score of self-attention by the distance of key and query (T5: Raffel et al. 2020).

    `table` is [buckets, heads], one for all layers of a stack; `build.architecture.positions` says which
    bucket a distance falls in. Distances of `max_distance` and more share the last.
    """

    table: str
    buckets: int
    max_distance: int
    bidirectional: bool


@dataclass(frozen=True)
class CrossAttention:
    """softmax(scale * q k^T) v: q from the decoder, k and v (the parts of `key_value`) from the memory."""

    query: Projection
    key_value: Projection
    output: Projection
    scale: float

    def tensors(self) -> Shapes:
        return self.query.tensors() | self.key_value.tensors() | self.output.tensors()


@dataclass(frozen=True)
class EncoderLayer:
    """Self-attention, in which every position sees all, and a feed-forward network."""

    attention: Attention
    attention_norm: Norm
    ffn: FeedForward
    ffn_norm: Norm

    def tensors(self) -> Shapes:
        norms = self.attention_norm.tensors() | self.ffn_norm.tensors()
        return self.attention.tensors() | self.ffn.tensors() | norms


@dataclass(frozen=True)
class DecoderLayer:
    """Causal self-attention, attention over the memory, and a feed-forward network, in this order."""

    attention: Attention
    attention_norm: Norm
    cross: CrossAttention
    cross_norm: Norm
    ffn: FeedForward
    ffn_norm: Norm

    def tensors(self) -> Shapes:
        parts = (self.attention, self.attention_norm, self.cross, self.cross_norm, self.ffn, self.ffn_norm)
        shapes: Shapes = {}
        for part in parts:
            shapes |= part.tensors()
        return shapes


AnyLayer = EncoderLayer | DecoderLayer
L_co = TypeVar("L_co", bound=AnyLayer, covariant=True)


@dataclass(frozen=True)
class Stack(Generic[L_co]):
    """norm of (the token's row * `embedding_scale` + its position's), the layers, and a last norm.

    Norms, positions and bias are absent where they are None.
    """

    vocab_size: int
    hidden_size: int
    heads: int
    head_dim: int
    max_positions: int
    embedding: str
    layers: tuple[L_co, ...]
    embedding_scale: float = 1.0
    positions: Positions | Sinusoids | None = None
    relative: RelativeBias | None = None
    embedding_norm: Norm | None = None
    final_norm: Norm | None = None

    def tensors(self) -> Shapes:
        shapes: Shapes = {self.embedding: (self.vocab_size, self.hidden_size)}
        if isinstance(self.positions, Positions):
            shapes[self.positions.table] = (self.positions.rows, self.hidden_size)
        if self.relative:
            shapes[self.relative.table] = (self.relative.buckets, self.heads)
        for part in (*self.layers, self.embedding_norm, self.final_norm):
            shapes |= part.tensors() if part else {}
        return shapes


@dataclass(frozen=True)
class EncoderDecoder:
    """Both stacks; the logits are head(hidden * `head_scale`)."""

    family: str
    norm_first: bool
    encoder: Stack[EncoderLayer]
    decoder: Stack[DecoderLayer]
    head: Projection
    head_scale: float = 1.0

    @property
    def vocab_size(self) -> int:
        """The decoder's vocabulary: the tokens that are generated."""
        return self.decoder.vocab_size

    @property
    def max_positions(self) -> int:
        """The decoder's positions."""
        return self.decoder.max_positions

    def tensors(self) -> Shapes:
        """Name and shape of every tensor of the model."""
        return self.encoder.tensors() | self.decoder.tensors() | self.head.tensors()
