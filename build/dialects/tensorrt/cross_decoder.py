"""The decoder's graph of an encoder-decoder; docs/gpu.md is its contract."""

from __future__ import annotations

import onnx_ir as ir

from build.architecture.parts import Attention
from build.architecture.seq2seq import CrossAttention, DecoderLayer, EncoderDecoder
from build.dialects.contents import Scored
from build.dialects.tensorrt.attention import Cache, Heads, Masks, SelfAttention, attend
from build.dialects.tensorrt.blocks import IR_VERSION, OPSETS, Blocks
from build.dialects.tensorrt.stack import biased_mask, embedded, residual
from build.dialects.tensorrt.store import Store
from build.dialects.writer import Writer, tensor


def build_cross_decoder(
    model: EncoderDecoder, store: Store, capacity: int, source_capacity: int, scored: Scored
) -> ir.Model:
    """The graph over stored weights, for rows of `capacity` tokens over sources of `source_capacity`."""
    return _DecoderBuilder(model, store, capacity, source_capacity, scored).build()


class _DecoderBuilder:
    def __init__(
        self, model: EncoderDecoder, store: Store, capacity: int, source_capacity: int, scored: Scored
    ) -> None:
        self._model = model
        stack = self._stack = model.decoder
        self._scored = scored
        self._capacity = capacity
        self._source_capacity = source_capacity
        self._writer = Writer(OPSETS, IR_VERSION)
        self._blocks = Blocks(self._writer, store)
        self._ids = tensor("input_ids", ir.DataType.INT64, ["batch", "seq"])
        self._positions = tensor("position_ids", ir.DataType.INT64, ["batch", "seq"])
        self._masks = Masks(capacity)
        self._seen_source = tensor("source_mask", ir.DataType.BOOL, ["batch", 1, "seq", source_capacity])
        self._cache = Cache(self._blocks, stack.heads, capacity, stack.head_dim)
        self._cross_caches: list[ir.Value] = []
        self._attention = SelfAttention(self._blocks, stack.heads, stack.heads, stack.head_dim)
        self._heads = Heads(self._blocks, stack.head_dim)

    def build(self) -> ir.Model:
        logits = self._logits()
        inputs = [self._ids, self._positions, *self._masks.inputs, self._seen_source]
        inputs += [*self._cache.inputs, *self._cross_caches]
        return self._writer.model("decoder", inputs, [logits, *self._cache.outputs])

    def _logits(self) -> ir.Value:
        blocks = self._blocks
        hidden = embedded(blocks, self._stack, self._ids, self._positions)
        mask = self._mask()
        for index, layer in enumerate(self._stack.layers):
            hidden = self._layer(index, layer, hidden, mask)
        if self._stack.final_norm:
            hidden = blocks.norm(hidden, self._stack.final_norm, "final")
        if self._scored is Scored.LAST:
            hidden = blocks.last_position(hidden, "final_last")
        hidden = blocks.scaled(hidden, self._model.head_scale, "head_scaled")
        return blocks.logits(hidden, self._model.head, self._scored)

    def _mask(self) -> ir.Value:
        mask = self._masks.of(None)
        if self._stack.relative is None:
            return mask
        keys = self._writer.integers("key_positions", list(range(self._capacity)))
        return biased_mask(self._blocks, self._stack, self._positions, keys, mask)

    def _layer(self, index: int, layer: DecoderLayer, hidden: ir.Value, mask: ir.Value) -> ir.Value:
        name, blocks, first = f"decoder_{index}", self._blocks, self._model.norm_first

        def attended(values: ir.Value) -> ir.Value:
            return self._attended(index, layer.attention, values, mask)

        def crossed(values: ir.Value) -> ir.Value:
            return self._crossed(index, layer.cross, values)

        def fed(values: ir.Value) -> ir.Value:
            return blocks.feed_forward(name, layer.ffn, values)

        hidden = residual(blocks, first, hidden, attended, layer.attention_norm, f"{name}_attention")
        hidden = residual(blocks, first, hidden, crossed, layer.cross_norm, f"{name}_cross")
        return residual(blocks, first, hidden, fed, layer.ffn_norm, f"{name}_ffn")

    def _attended(self, index: int, attention: Attention, hidden: ir.Value, mask: ir.Value) -> ir.Value:
        name = f"decoder_{index}"
        query, key, value = self._attention.heads(name, attention, hidden)
        cached = self._cache.write(index, key, value)
        attended = attend(self._blocks, query, cached, mask, attention.scale, f"{name}_attended")
        return self._attention.output(attended, attention)

    def _crossed(self, index: int, cross: CrossAttention, hidden: ir.Value) -> ir.Value:
        name, stack = f"decoder_{index}_cross", self._stack
        query = self._heads.apart(self._blocks.project(hidden, cross.query), stack.heads)
        shape: list[str | int] = ["batch", stack.heads, self._source_capacity, stack.head_dim]
        names = (f"cross_key_{index}", f"cross_value_{index}")
        caches = [tensor(cache, self._blocks.store.compute, shape) for cache in names]
        self._cross_caches += caches
        attended = attend(self._blocks, query, caches, self._seen_source, cross.scale, f"{name}_attended")
        return self._blocks.project(self._heads.joined(attended, stack.heads), cross.output)
