"""The graph of a decoder-only model; docs/gpu.md is its contract."""

from __future__ import annotations

import onnx_ir as ir

from build.architecture.parts import Architecture, Layer
from build.dialects.contents import Scored, rotations
from build.dialects.tensorrt.attention import Cache, Masks, SelfAttention, attend
from build.dialects.tensorrt.blocks import IR_VERSION, OPSETS, Blocks
from build.dialects.tensorrt.store import Store
from build.dialects.writer import Writer, tensor


def build_decoder(architecture: Architecture, store: Store, capacity: int, scored: Scored) -> ir.Model:
    """The graph over stored weights, for rows of `capacity` positions; variants of a model share them."""
    return _DecoderBuilder(architecture, store, capacity, scored).build()


class _DecoderBuilder:
    def __init__(self, architecture: Architecture, store: Store, capacity: int, scored: Scored) -> None:
        arch = self._arch = architecture
        self._scored = scored
        self._writer = Writer(OPSETS, IR_VERSION)
        self._blocks = Blocks(self._writer, store)
        self._ids = tensor("input_ids", ir.DataType.INT64, ["batch", "seq"])
        self._positions = tensor("position_ids", ir.DataType.INT64, ["batch", "seq"])
        self._masks = Masks(capacity)
        self._cache = Cache(self._blocks, arch.kv_heads, capacity, arch.head_dim)
        self._attention = SelfAttention(
            self._blocks, arch.heads, arch.kv_heads, arch.head_dim, rotations(arch), self._positions
        )

    def build(self) -> ir.Model:
        hidden = self._embedded()
        for index, layer in enumerate(self._arch.layers):
            hidden = self._layer(index, layer, hidden)
        hidden = self._blocks.norm(hidden, self._arch.final_norm, "final")
        logits = self._blocks.logits(hidden, self._arch.head, self._scored)
        inputs = [self._ids, *self._placed(), *self._masks.inputs, *self._cache.inputs]
        return self._writer.model("decoder", inputs, [logits, *self._cache.outputs])

    def _placed(self) -> list[ir.Value]:
        used = self._arch.positions is not None or rotations(self._arch)
        return [self._positions] if used else []

    def _embedded(self) -> ir.Value:
        arch, blocks = self._arch, self._blocks
        rows = blocks.embed(self._ids, arch.embedding, arch.embedding_scale)
        if arch.positions is None:
            return rows
        placed = blocks.placed(arch.positions.table, self._positions, arch.positions.offset)
        return blocks.add(rows, placed, "embedded_placed")

    def _layer(self, index: int, layer: Layer, hidden: ir.Value) -> ir.Value:
        name, blocks, attention = f"layer_{index}", self._blocks, layer.attention
        normed = blocks.norm(hidden, layer.input_norm, f"{name}_input")
        query, key, value = self._attention.heads(name, attention, normed)
        cached = self._cache.write(index, key, value)
        mask = self._masks.of(attention.window)
        attended = attend(blocks, query, cached, mask, attention.scale, f"{name}_attended")
        change = self._attention.output(attended, attention)
        if index == len(self._arch.layers) - 1 and self._scored is Scored.LAST:
            change = blocks.last_position(change, f"{name}_change_last")
            hidden = blocks.last_position(hidden, f"{name}_hidden_last")
        hidden = blocks.add(hidden, blocks.maybe_norm(change, layer.output_norm), f"{name}_attention_sum")
        normed = blocks.norm(hidden, layer.ffn_norm, f"{name}_ffn_input")
        change = blocks.maybe_norm(blocks.feed_forward(name, layer.ffn, normed), layer.ffn_output_norm)
        return blocks.add(hidden, change, f"{name}_sum")
