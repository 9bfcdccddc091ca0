"""The parts of a model: the vocabulary in which adapters describe a family.

Dialects, the reference and the passes see only these descriptions, never config.json. A product that a
dialect may fuse (q, k, v; gate, up) is one Projection of several parts, its rows stacked in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Projection:
    """y = x W^T + b, W [sum of rows, columns]; `biases` is empty or as long as `parts`."""

    parts: tuple[str, ...]
    rows: tuple[int, ...]
    columns: int
    biases: tuple[str, ...] = ()

    def apart(self) -> Iterator[Projection]:
        """Each part as a separate product."""
        for index, (part, rows) in enumerate(zip(self.parts, self.rows, strict=True)):
            yield Projection((part,), (rows,), self.columns, self.biases[index : index + 1])

    def tensors(self) -> Shapes:
        weights = zip(self.parts, self.rows, strict=True)
        biases = zip(self.biases, self.rows, strict=bool(self.biases))
        return {name: (rows, self.columns) for name, rows in weights} | {b: (rows,) for b, rows in biases}


class NormKind(Enum):
    """RMS divides by the root mean square (Zhang and Sennrich 2019); LAYER subtracts the mean before."""

    RMS = "rms"
    LAYER = "layer"


@dataclass(frozen=True)
class Norm:
    """A norm over the last axis, of `size`; only LAYER has a bias."""

    kind: NormKind
    weight: str
    size: int
    epsilon: float
    bias: str | None = None

    def tensors(self) -> Shapes:
        return {name: (self.size,) for name in (self.weight, self.bias) if name is not None}


class Activation(Enum):
    """GELU is the exact one (erf), GELU_TANH its approximation (Hendrycks and Gimpel 2016)."""

    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU = "relu"


@dataclass(frozen=True)
class FeedForward:
    """outer(activation(inner x)); with a gate outer(activation(gate x) * up x), where inner is (gate, up)."""

    inner: Projection
    outer: Projection
    activation: Activation

    @property
    def gated(self) -> bool:
        return len(self.inner.parts) == 2

    def tensors(self) -> Shapes:
        return self.inner.tensors() | self.outer.tensors()


@dataclass(frozen=True)
class Attention:
    """Causal self-attention: softmax(scale * q k^T) v.

    `rotary` has head_dim / 2 inverse frequencies, scaling applied, and is None where positions enter
    elsewhere; `window` is how many positions, itself included, a token sees; q and k are normed per head,
    before rotation.
    """

    qkv: Projection
    output: Projection
    scale: float
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    rotary: tuple[float, ...] | None = None
    window: int | None = None

    def tensors(self) -> Shapes:
        shapes = self.qkv.tensors() | self.output.tensors()
        for norm in (self.q_norm, self.k_norm):
            shapes |= norm.tensors() if norm else {}
        return shapes


@dataclass(frozen=True)
class Layer:
    """x += output_norm(attention(input_norm(x))); x += ffn_output_norm(ffn(ffn_norm(x))).

    The norms of the outputs are absent in most families.
    """

    input_norm: Norm
    attention: Attention
    ffn_norm: Norm
    ffn: FeedForward
    output_norm: Norm | None = None
    ffn_output_norm: Norm | None = None

    def tensors(self) -> Shapes:
        norms: Shapes = {}
        for norm in self.norms():
            norms |= norm.tensors()
        return norms | self.attention.tensors() | self.ffn.tensors()

    def norms(self) -> Iterator[Norm]:
        """The norms over the hidden size."""
        yield from (self.input_norm, self.ffn_norm)
        yield from (norm for norm in (self.output_norm, self.ffn_output_norm) if norm)


@dataclass(frozen=True)
class Positions:
    """A learned table [rows, hidden]: position p adds row p + offset."""

    table: str
    rows: int
    offset: int = 0


@dataclass(frozen=True)
class Architecture:
    """A decoder: dimensions, and the names of its tensors.

    The embedding of a token is its row times `embedding_scale`, plus that of its position where there are
    `positions`. `wide`: activations leave the range of float16.
    """

    family: str
    vocab_size: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    tied_head: bool
    embedding: str
    layers: tuple[Layer, ...]
    final_norm: Norm
    head: Projection
    embedding_scale: float = 1.0
    positions: Positions | None = None
    wide: bool = False

    def tensors(self) -> Shapes:
        """Name and shape of every tensor of the model."""
        shapes: Shapes = {self.embedding: (self.vocab_size, self.hidden_size)}
        shapes |= self.final_norm.tensors() | self.head.tensors()
        if self.positions:
            shapes[self.positions.table] = (self.positions.rows, self.hidden_size)
        for layer in self.layers:
            shapes |= layer.tensors()
        return shapes
