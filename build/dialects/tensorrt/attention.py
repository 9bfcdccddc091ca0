"""Attention over caches of a static capacity, with masks that the runner makes.

A cache is a graph input and, with this step's keys and values written into it by TensorScatter, a graph
output: bind one address as both. TensorRT ignores `is_causal` next to a mask, and `nonpad_kv_seqlen`: the
masks say all.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from build.architecture.parts import Attention
from build.dialects.tensorrt.blocks import Blocks
from build.dialects.writer import Attributes, tensor

_HEADS_FIRST = {"perm": [0, 2, 1, 3]}
_LINEAR: Attributes = {"axis": -2, "mode": "linear"}


class Heads:
    """Moves between [batch, seq, heads * size] and [batch, heads, seq, size]."""

    def __init__(self, blocks: Blocks, size: int) -> None:
        self._writer = blocks.writer
        self._size = size

    def apart(self, packed: ir.Value, heads: int) -> ir.Value:
        return self.first(self.inner(packed, heads), ir.Value(name=f"{packed.name}_heads_first"))

    def inner(self, packed: ir.Value, heads: int) -> ir.Value:
        """[batch, seq, heads, size]"""
        shape = self._writer.integers(f"heads_{heads}_{self._size}", [0, 0, heads, self._size])
        return self._writer.op("Reshape", [packed, shape], f"{packed.name}_heads")

    def first(self, inner: ir.Value, output: ir.Value) -> ir.Value:
        """Makes `output` [batch, heads, seq, size] of `inner` [batch, seq, heads, size]."""
        self._writer.emit("Transpose", [inner], [output], _HEADS_FIRST)
        return output

    def joined(self, apart: ir.Value, heads: int) -> ir.Value:
        last = self._writer.op("Transpose", [apart], f"{apart.name}_heads_last", _HEADS_FIRST)
        shape = self._writer.integers(f"joined_{heads * self._size}", [0, 0, heads * self._size])
        return self._writer.op("Reshape", [last, shape], f"{apart.name}_joined")


class Cache:
    """The inputs `past_*` and outputs `present_*`, [batch, kv_heads, capacity, size] each."""

    def __init__(self, blocks: Blocks, kv_heads: int, capacity: int, size: int) -> None:
        self._writer = blocks.writer
        self._dtype = blocks.store.compute
        self._shape: list[str | int] = ["batch", kv_heads, capacity, size]
        self._indices = tensor("write_indices", ir.DataType.INT64, ["batch"])
        self._pasts: list[ir.Value] = []
        self._presents: list[ir.Value] = []

    def write(self, index: int, key: ir.Value, value: ir.Value) -> list[ir.Value]:
        """Writes a layer's new [batch, kv_heads, seq, size]; returns its keys and values, past and new."""
        return [self._written(f"{kind}_{index}", new) for kind, new in (("key", key), ("value", value))]

    def _written(self, name: str, new: ir.Value) -> ir.Value:
        past = tensor(f"past_{name}", self._dtype, self._shape)
        present = tensor(f"present_{name}", self._dtype, self._shape)
        self._writer.emit("TensorScatter", [past, new, self._indices], [present], _LINEAR)
        self._pasts.append(past)
        self._presents.append(present)
        return present

    @property
    def inputs(self) -> list[ir.Value]:
        return [self._indices, *self._pasts]

    @property
    def outputs(self) -> list[ir.Value]:
        return self._presents


class Masks:
    """One mask for each window of the model that is less than the capacity, and one for none."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._masks: dict[str, ir.Value] = {}

    def of(self, window: int | None) -> ir.Value:
        wide = window is None or window >= self._capacity
        name = "attention_mask" if wide else f"attention_mask_{window}"
        shape: list[str | int] = ["batch", 1, "seq", self._capacity]
        return self._masks.setdefault(name, tensor(name, ir.DataType.BOOL, shape))

    @property
    def inputs(self) -> list[ir.Value]:
        return list(self._masks.values())


def attend(
    blocks: Blocks, query: ir.Value, keys: Sequence[ir.Value], mask: ir.Value, scale: float, name: str
) -> ir.Value:
    """softmax(scale * q k^T) v where the mask is true, or with a mask of numbers added to the scores.

    The scale goes into the query: TensorRT's parser would multiply all keys of the cache by its root.
    """
    query = blocks.scaled(query, scale, f"{name}_query")
    return blocks.writer.op("Attention", [query, *keys, mask], name, {"scale": 1.0})


class SelfAttention:
    """Self-attention of one stack of layers; `rotations` are the frequencies whose tables the store has."""

    def __init__(
        self,
        blocks: Blocks,
        heads: int,
        kv_heads: int,
        size: int,
        rotations: Sequence[tuple[float, ...]] = (),
        positions: ir.Value | None = None,
    ) -> None:
        self._blocks = blocks
        self._counts = (heads, kv_heads, kv_heads)
        self._heads = Heads(blocks, size)
        self._rotations = list(rotations)
        self._positions = positions

    def heads(self, name: str, attention: Attention, hidden: ir.Value) -> list[ir.Value]:
        """q, k and v, [batch, heads, seq, size], normed and rotated."""
        packed = self._blocks.project(hidden, attention.qkv)
        names = [f"{name}_{part}" for part in ("query", "key", "value")]
        parts = self._blocks.split(packed, attention.qkv.rows, names)
        norms = (attention.q_norm, attention.k_norm, None)
        apart = []
        for part, count, norm in zip(parts, self._counts, norms, strict=True):
            inner = self._blocks.maybe_norm(self._heads.inner(part, count), norm)
            apart.append(self._heads.first(inner, ir.Value(name=f"{part.name}_heads_first")))
        query, key, value = apart
        return [self._rotated(query, attention), self._rotated(key, attention), value]

    def _rotated(self, part: ir.Value, attention: Attention) -> ir.Value:
        if attention.rotary is None:
            return part
        assert self._positions is not None
        number = self._rotations.index(attention.rotary)
        tables = [self._blocks.tensor(f"{table}_{number}") for table in ("cosines", "sines")]
        return self._blocks.writer.op(
            "RotaryEmbedding", [part, *tables, self._positions], f"{part.name}_rotated"
        )

    def output(self, attended: ir.Value, attention: Attention) -> ir.Value:
        return self._blocks.project(self._heads.joined(attended, self._counts[0]), attention.output)
