"""The encoder's graph, which ends in what the decoder's cross-attention reads; docs/gpu.md."""

from __future__ import annotations

import onnx_ir as ir

from build.architecture.parts import Attention
from build.architecture.seq2seq import CrossAttention, EncoderDecoder, EncoderLayer
from build.dialects.tensorrt.attention import Heads, SelfAttention, attend
from build.dialects.tensorrt.blocks import IR_VERSION, OPSETS, Blocks
from build.dialects.tensorrt.stack import biased_mask, embedded, residual
from build.dialects.tensorrt.store import Store
from build.dialects.writer import Writer, tensor


def build_encoder(model: EncoderDecoder, store: Store) -> ir.Model:
    """The graph over stored weights, which the decoder's shares."""
    return _EncoderBuilder(model, store).build()


class _EncoderBuilder:
    def __init__(self, model: EncoderDecoder, store: Store) -> None:
        self._model = model
        stack = self._stack = model.encoder
        self._writer = Writer(OPSETS, IR_VERSION)
        self._blocks = Blocks(self._writer, store)
        self._ids = tensor("input_ids", ir.DataType.INT64, [1, "source"])
        self._seen = tensor("attention_mask", ir.DataType.BOOL, [1, 1, "source", "source"])
        self._attention = SelfAttention(self._blocks, stack.heads, stack.heads, stack.head_dim)
        self._cross_heads = Heads(self._blocks, model.decoder.head_dim)

    def build(self) -> ir.Model:
        positions = self._positions()
        hidden = embedded(self._blocks, self._stack, self._ids, positions)
        mask = self._mask(positions)
        for index, layer in enumerate(self._stack.layers):
            hidden = self._layer(f"encoder_{index}", layer, hidden, mask)
        if self._stack.final_norm:
            hidden = self._blocks.norm(hidden, self._stack.final_norm, "final")
        outputs: list[ir.Value] = []
        for index, target in enumerate(self._model.decoder.layers):
            outputs += self._cross(index, target.cross, hidden)
        return self._writer.model("encoder", [self._ids, self._seen], outputs)

    def _positions(self) -> ir.Value:
        """The positions 0 to source - 1, [source]."""
        op, integers = self._writer.op, self._writer.integers
        shape = op("Shape", [self._ids], "source_shape", {"start": 1, "end": 2})
        count = op("Squeeze", [shape], "source_length")
        return op("Range", [integers("zero", 0), count, integers("one", 1)], "positions")

    def _mask(self, positions: ir.Value) -> ir.Value:
        if self._stack.relative is None:
            return self._seen
        row = self._writer.op("Unsqueeze", [positions, self._writer.integers("first_axis", [0])], "row")
        return biased_mask(self._blocks, self._stack, row, positions, self._seen)

    def _layer(self, name: str, layer: EncoderLayer, hidden: ir.Value, mask: ir.Value) -> ir.Value:
        blocks, first = self._blocks, self._model.norm_first

        def attended(values: ir.Value) -> ir.Value:
            return self._attended(name, layer.attention, values, mask)

        def fed(values: ir.Value) -> ir.Value:
            return blocks.feed_forward(name, layer.ffn, values)

        hidden = residual(blocks, first, hidden, attended, layer.attention_norm, f"{name}_attention")
        return residual(blocks, first, hidden, fed, layer.ffn_norm, f"{name}_ffn")

    def _attended(self, name: str, attention: Attention, hidden: ir.Value, mask: ir.Value) -> ir.Value:
        query, key, value = self._attention.heads(name, attention, hidden)
        attended = attend(self._blocks, query, [key, value], mask, attention.scale, f"{name}_attended")
        return self._attention.output(attended, attention)

    def _cross(self, index: int, cross: CrossAttention, memory: ir.Value) -> list[ir.Value]:
        """Keys and values for one layer of the decoder."""
        decoder, kinds = self._model.decoder, ("key", "value")
        packed = self._blocks.project(memory, cross.key_value)
        names = [f"memory_{kind}_{index}" for kind in kinds]
        parts = self._blocks.split(packed, cross.key_value.rows, names)
        outputs = []
        for kind, part in zip(kinds, parts, strict=True):
            shape: list[str | int] = [1, decoder.heads, "source", decoder.head_dim]
            output = tensor(f"cross_{kind}_{index}", self._blocks.store.compute, shape)
            outputs.append(self._cross_heads.first(self._cross_heads.inner(part, decoder.heads), output))
        return outputs
