"""The encoder's graph, run once for a request: it ends in what the decoder's cross-attention reads.

inputs   input_ids INT64 [1, source]
outputs  cross_key_i, cross_value_i [1, heads, source, head_dim] for each layer of the decoder
Outputs are FLOAT, or FLOAT16 at precision fp16.
"""

from __future__ import annotations

import onnx_ir as ir

from build.architecture.parts import Attention
from build.architecture.seq2seq import CrossAttention, EncoderDecoder
from build.dialects.contents import distance_table, position_table
from build.dialects.onnxruntime.blocks import IR_VERSION, OPSETS, Blocks
from build.dialects.onnxruntime.stack import Residual, embedded, first_row
from build.dialects.onnxruntime.store import Store
from build.dialects.writer import CONTRIB, Writer, tensor


def build_encoder(model: EncoderDecoder, store: Store) -> ir.Model:
    """The graph over stored weights, which the decoder's shares."""
    return _EncoderBuilder(model, store).build()


class _EncoderBuilder:
    def __init__(self, model: EncoderDecoder, store: Store) -> None:
        self._model = model
        self._stack = model.encoder
        self._store = store
        self._writer = Writer(OPSETS, IR_VERSION)
        self._ids = tensor("input_ids", ir.DataType.INT64, [1, "source"])
        self._blocks = Blocks(self._writer, store, self._ids)

    def build(self) -> ir.Model:
        shape = self._writer.op("Shape", [self._ids], "source_shape", {"start": 1, "end": 2})
        self._count = self._writer.op("Squeeze", [shape], "source_length")
        bias = self._distance_bias() if self._stack.relative else None
        start = embedded(self._writer, self._blocks, self._stack, self._ids, self._positions())
        residual = Residual(self._blocks, self._stack, self._model.norm_first, start)
        for index, layer in enumerate(self._stack.layers):
            name = f"encoder_{index}"
            residual.add(self._attention(name, layer.attention, residual.hidden, bias), f"{name}_attended")
            residual.add(self._blocks.feed_forward(name, layer.ffn, residual.hidden), f"{name}_fed")
        outputs: list[ir.Value] = []
        for index, target in enumerate(self._model.decoder.layers):
            outputs += self._cross(index, target.cross, residual.hidden)
        return self._writer.model("encoder", [self._ids], outputs)

    def _positions(self) -> ir.Value | None:
        table = position_table(self._stack)
        if table is None:
            return None
        op, integers = self._writer.op, self._writer.integers
        first = integers("first_row", first_row(self._stack))
        end = op("Add", [first, self._count], "end_row")
        rows = op("Range", [first, end, integers("one", 1)], "position_ids")
        return op("Gather", [self._blocks.tensor(table), rows], "position_rows")

    def _distance_bias(self) -> ir.Value:
        """The bias [1, heads, source, source] by each key's position minus the query's."""
        assert self._stack.relative is not None
        far = self._stack.relative.max_distance
        op, integers = self._writer.op, self._writer.integers
        steps = op("Range", [integers("zero", 0), self._count, integers("one", 1)], "steps")
        column = op("Unsqueeze", [steps, integers("last_axis", [1])], "query_steps")
        distances = op("Sub", [steps, column], "distances")
        near = op("Clip", [distances, integers("nearest", -far), integers("furthest", far)], "near_distances")
        index = op("Add", [near, integers("furthest", far)], "distance_index")
        table = self._blocks.tensor(distance_table(self._stack))
        biases = op("Gather", [table, index], "distance_biases", {"axis": 1})
        return op("Unsqueeze", [biases, integers("first_axis", [0])], "distance_bias")

    def _attention(
        self, name: str, attention: Attention, hidden: ir.Value, bias: ir.Value | None
    ) -> ir.Value:
        names = [f"{name}_{part}" for part in ("query", "key", "value")]
        parts = self._blocks.parts(hidden, attention.qkv, names)
        attributes = {"num_heads": self._stack.heads, "scale": attention.scale}
        inputs = [*parts, None, None, bias] if bias is not None else parts
        attended = self._writer.op("MultiHeadAttention", inputs, f"{name}_heads", attributes, CONTRIB)
        return self._blocks.project(attended, attention.output)

    def _cross(self, index: int, cross: CrossAttention, memory: ir.Value) -> list[ir.Value]:
        kinds = ("key", "value")
        flat = self._blocks.parts(memory, cross.key_value, [f"memory_{kind}_{index}" for kind in kinds])
        return [self._by_head(part, f"cross_{kind}_{index}") for kind, part in zip(kinds, flat, strict=True)]

    def _by_head(self, flat: ir.Value, name: str) -> ir.Value:
        """[1, source, heads * size] to [1, heads, source, size]."""
        decoder = self._model.decoder
        shape = self._writer.integers("per_head", [1, -1, decoder.heads, decoder.head_dim])
        heads = self._writer.op("Reshape", [flat, shape], f"{name}_heads")
        turned = self._writer.op("Transpose", [heads], name, {"perm": [0, 2, 1, 3]})
        turned.type = ir.TensorType(self._store.compute)
        turned.shape = ir.Shape([1, decoder.heads, "source", decoder.head_dim])
        return turned
