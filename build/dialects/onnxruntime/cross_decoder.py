"""A step of an encoder-decoder's decoder: one token for each row of a ragged batch.

inputs   input_ids INT64 [batch, 1]; seqlens_k INT32 [batch], a row's length after this step minus 1;
         total_sequence_length INT32 [], the longest row's length after this step;
         past_key_i, past_value_i [batch, heads, capacity, head_dim];
         source_seqlens INT32 [batch], the length of a row's source minus 1; source_total INT32 [], that of
         the longest source; cross_key_i, cross_value_i [batch, heads, source capacity, head_dim]
outputs  logits FLOAT [batch, 1, vocab]; present_key_i, present_value_i, shaped as the past, and
         present_cross_key_i, present_cross_value_i, shaped as the cross cache: bind one address as both.
Caches are FLOAT, or FLOAT16 at precision fp16.

Cross-attention is GroupQueryAttention with no new keys: it reads the cache of each row as far as its source
goes, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from build.architecture.parts import Attention
from build.architecture.seq2seq import CrossAttention, EncoderDecoder
from build.dialects.contents import distance_table, position_table
from build.dialects.onnxruntime.blocks import IR_VERSION, OPSETS, Blocks
from build.dialects.onnxruntime.stack import Residual, embedded, first_row
from build.dialects.onnxruntime.store import Store
from build.dialects.writer import CONTRIB, Writer, tensor


def build_cross_decoder(model: EncoderDecoder, store: Store) -> ir.Model:
    """The graph over stored weights, which the encoder's shares."""
    return _DecoderBuilder(model, store).build()


class _DecoderBuilder:
    def __init__(self, model: EncoderDecoder, store: Store) -> None:
        self._model = model
        self._stack = model.decoder
        self._store = store
        self._writer = Writer(OPSETS, IR_VERSION)
        self._ids = tensor("input_ids", ir.DataType.INT64, ["batch", 1])
        self._blocks = Blocks(self._writer, store, self._ids)
        self._lengths = tensor("seqlens_k", ir.DataType.INT32, ["batch"])
        self._longest = tensor("total_sequence_length", ir.DataType.INT32, [])
        self._source_lengths = tensor("source_seqlens", ir.DataType.INT32, ["batch"])
        self._longest_source = tensor("source_total", ir.DataType.INT32, [])
        self._nothing: ir.Value | None = None
        self._pasts = self._caches("past_", "capacity")
        self._cross_pasts = self._caches("cross_", "source_capacity")
        self._presents = self._caches("present_", "capacity")
        self._cross_presents = self._caches("present_cross_", "source_capacity")

    def _caches(self, prefix: str, capacity: str) -> list[tuple[ir.Value, ir.Value]]:
        """Keys and values of each layer."""
        stack, dtype = self._stack, self._store.compute
        shape: list[str | int] = ["batch", stack.heads, capacity, stack.head_dim]
        return [
            (tensor(f"{prefix}key_{index}", dtype, shape), tensor(f"{prefix}value_{index}", dtype, shape))
            for index in range(len(stack.layers))
        ]

    def build(self) -> ir.Model:
        logits = self._logits()
        inputs = [self._ids, self._lengths, self._longest, *_flat(self._pasts)]
        inputs += [self._source_lengths, self._longest_source, *_flat(self._cross_pasts)]
        outputs = [logits, *_flat(self._presents), *_flat(self._cross_presents)]
        return self._writer.model("decoder", inputs, outputs)

    def _logits(self) -> ir.Value:
        bias = self._distance_bias() if self._stack.relative else None
        start = embedded(self._writer, self._blocks, self._stack, self._ids, self._positions())
        residual = Residual(self._blocks, self._stack, self._model.norm_first, start)
        for index, layer in enumerate(self._stack.layers):
            name = f"decoder_{index}"
            residual.add(self._attention(index, layer.attention, residual.hidden, bias), f"{name}_attended")
            residual.add(self._cross(index, layer.cross, residual.hidden), f"{name}_crossed")
            residual.add(self._blocks.feed_forward(name, layer.ffn, residual.hidden), f"{name}_fed")
        hidden = self._blocks.scaled(residual.hidden, self._model.head_scale, "head_scaled")
        return self._blocks.logits(hidden, self._model.head, 1)

    def _column(self) -> ir.Value:
        """The position of each row's token, [batch, 1]."""
        ends = self._writer.op("Cast", [self._lengths], "ends", {"to": int(ir.DataType.INT64)})
        return self._writer.op("Unsqueeze", [ends, self._writer.integers("step_axis", [1])], "step_positions")

    def _positions(self) -> ir.Value | None:
        table = position_table(self._stack)
        if table is None:
            return None
        offset = self._writer.integers("first_row", first_row(self._stack))
        rows = self._writer.op("Add", [self._column(), offset], "position_ids")
        return self._writer.op("Gather", [self._blocks.tensor(table), rows], "position_rows")

    def _distance_bias(self) -> ir.Value:
        """The bias [batch, heads, 1, longest] by each key's position minus the position of the row's token.

        A key beyond the row's token is not seen, whatever its bias.
        """
        assert self._stack.relative is not None
        far = self._stack.relative.max_distance
        op, integers = self._writer.op, self._writer.integers
        longest = op("Cast", [self._longest], "longest", {"to": int(ir.DataType.INT64)})
        keys = op("Range", [integers("zero", 0), longest, integers("one", 1)], "key_positions")
        distances = op("Sub", [keys, self._column()], "distances")
        near = op("Clip", [distances, integers("nearest", -far), integers("own", 0)], "near_distances")
        index = op("Add", [near, integers("furthest", far)], "distance_index")
        table = self._blocks.tensor(distance_table(self._stack))
        biases = op("Gather", [table, index], "distance_biases", {"axis": 1})
        by_row = op("Transpose", [biases], "distance_biases_by_row", {"perm": [1, 0, 2]})
        return op("Unsqueeze", [by_row, integers("query_axis", [2])], "distance_bias")

    def _attention(
        self, index: int, attention: Attention, hidden: ir.Value, bias: ir.Value | None
    ) -> ir.Value:
        packed = self._blocks.project(hidden, attention.qkv)
        inputs = [packed, None, None, *self._pasts[index], self._lengths, self._longest]
        if bias is not None:
            inputs += [None, None, None, bias]
        attended = ir.Value(name=f"decoder_{index}_heads")
        self._attend(inputs, [attended, *self._presents[index]], attention.scale)
        return self._blocks.project(attended, attention.output)

    def _cross(self, index: int, cross: CrossAttention, hidden: ir.Value) -> ir.Value:
        query = self._blocks.project(hidden, cross.query)
        nothing = self._nothing = self._nothing or self._no_keys(query)
        inputs = [query, nothing, nothing, *self._cross_pasts[index]]
        inputs += [self._source_lengths, self._longest_source]
        attended = ir.Value(name=f"decoder_{index}_cross_heads")
        self._attend(inputs, [attended, *self._cross_presents[index]], cross.scale)
        return self._blocks.project(attended, cross.output)

    def _no_keys(self, query: ir.Value) -> ir.Value:
        """No new keys, [batch, 0, heads * size], for all layers."""
        zero, axis = self._writer.integers("no_step", [0]), self._writer.integers("step_axis", [1])
        return self._writer.op("Slice", [query, zero, zero, axis], "no_keys")

    def _attend(self, inputs: Sequence[ir.Value | None], outputs: list[ir.Value], scale: float) -> None:
        heads = self._stack.heads
        attributes = {"num_heads": heads, "kv_num_heads": heads, "scale": scale}
        self._writer.emit("GroupQueryAttention", inputs, outputs, attributes, CONTRIB)


def _flat(pairs: list[tuple[ir.Value, ir.Value]]) -> list[ir.Value]:
    return [value for pair in pairs for value in pair]
