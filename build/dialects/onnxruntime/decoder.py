"""The decoder's graph for ONNX Runtime's fused operators, on CPU and CUDA.

inputs   input_ids INT64 [batch, seq]; seqlens_k INT32 [batch], a row's length after this step minus 1;
         total_sequence_length INT32 [], the longest row's length after this step;
         past_key_i, past_value_i [batch, kv_heads, capacity, head_dim]
outputs  logits FLOAT [batch, 1, vocab] of the last position, or [batch, seq, vocab] for all;
         present_key_i, present_value_i, shaped as the past: bind one address as both.
The cache is FLOAT, or FLOAT16 at precision fp16.

A decode step is seq 1 at any batch, rows of any length; a prefill is batch 1, any seq, over any past.
"""

from __future__ import annotations

import onnx_ir as ir

from build.architecture.parts import Architecture, Attention, Layer, Norm, Positions
from build.dialects.contents import Scored, rotations
from build.dialects.onnxruntime.blocks import IR_VERSION, OPSETS, Blocks
from build.dialects.onnxruntime.store import Store
from build.dialects.writer import CONTRIB, Writer, tensor
from build.errors import Unsupported
from build.quantise import Precision


def require_runnable(architecture: Architecture, precision: Precision) -> None:
    """Unsupported where the operators of this dialect cannot run the model."""
    if architecture.wide and precision is Precision.FP16:
        raise Unsupported(
            f"precision fp16: activations of a {architecture.family} leave the range of float16: take int8,"
            " or bf16 with --engine tensorrt"
        )
    if rotations(architecture) and architecture.head_dim % 16:
        raise Unsupported(
            f"head_dim {architecture.head_dim} is not supported: ONNX Runtime's GroupQueryAttention"
            " needs a multiple of 16 for rotary embeddings"
        )


def build_decoder(architecture: Architecture, store: Store, scored: Scored) -> ir.Model:
    """The graph over stored weights; variants of one model share them."""
    return _DecoderBuilder(architecture, store, scored).build()


class _DecoderBuilder:
    def __init__(self, architecture: Architecture, store: Store, scored: Scored) -> None:
        self._arch = architecture
        self._store = store
        self._scored = scored
        self._writer = Writer(OPSETS, IR_VERSION)
        self._rotations = rotations(architecture)
        self._presents: list[ir.Value] = []
        self._ids = tensor("input_ids", ir.DataType.INT64, ["batch", "seq"])
        self._blocks = Blocks(self._writer, store, self._ids)
        self._lengths = tensor("seqlens_k", ir.DataType.INT32, ["batch"])
        self._longest = tensor("total_sequence_length", ir.DataType.INT32, [])
        self._pasts = [
            tensor(f"past_{kind}_{index}", store.compute, self._cache_shape())
            for index in range(len(architecture.layers))
            for kind in ("key", "value")
        ]

    def build(self) -> ir.Model:
        logits = self._logits()
        inputs = [self._ids, self._lengths, self._longest, *self._pasts]
        return self._writer.model("decoder", inputs, [logits, *self._presents])

    def _cache_shape(self) -> list[str | int]:
        return ["batch", self._arch.kv_heads, "capacity", self._arch.head_dim]

    def _logits(self) -> ir.Value:
        residual = self._embedded()
        layers = self._arch.layers
        hidden = self._blocks.norm(residual, layers[0].input_norm, "layer_0_input")
        following = [*(layer.input_norm for layer in layers[1:]), self._arch.final_norm]
        for index, (layer, norm) in enumerate(zip(layers, following, strict=True)):
            residual, hidden = self._layer(index, layer, norm, residual, hidden)
        return self._blocks.logits(hidden, self._arch.head, 1 if self._scored is Scored.LAST else "seq")

    def _embedded(self) -> ir.Value:
        table = self._blocks.tensor(self._arch.embedding)
        rows = self._writer.op("Gather", [table, self._ids], "embedded")
        rows = self._blocks.scaled(rows, self._arch.embedding_scale, "embedded_scaled")
        if self._arch.positions is None:
            return rows
        return self._writer.op("Add", [rows, self._position_rows(self._arch.positions)], "placed")

    def _position_rows(self, positions: Positions) -> ir.Value:
        """The rows of the tokens' positions, counted back from each row's length after this step."""
        op, integers = self._writer.op, self._writer.integers
        seq = op("Shape", [self._ids], "seq_shape", {"start": 1, "end": 2})
        count = op("Squeeze", [seq], "seq_count")
        steps = op("Range", [integers("zero", 0), count, integers("one", 1)], "steps")
        ends = op("Cast", [self._lengths], "ends", {"to": int(ir.DataType.INT64)})
        first = op("Sub", [ends, count], "first_but_one")
        start = op("Add", [first, integers("first_row", 1 + positions.offset)], "first_rows")
        column = op("Unsqueeze", [start, integers("row_axis", [1])], "first_rows_column")
        rows = op("Add", [column, steps], "position_ids")
        return op("Gather", [self._blocks.tensor(positions.table), rows], "position_rows")

    def _layer(
        self, index: int, layer: Layer, next_norm: Norm, residual: ir.Value, hidden: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """One block; returns the residual stream and what the next norm makes of it."""
        name, blocks = f"layer_{index}", self._blocks
        attended = self._attention(index, layer.attention, hidden)
        if index == len(self._arch.layers) - 1 and self._scored is Scored.LAST:
            attended, residual = blocks.keep_last(attended, residual, batch=self._lengths)
        output = self._normed(blocks.project(attended, layer.attention.output), layer.output_norm)
        hidden, residual = blocks.add_norm(residual, output, layer.ffn_norm, f"{name}_post")
        ffn = self._normed(blocks.feed_forward(name, layer.ffn, hidden), layer.ffn_output_norm)
        hidden, residual = blocks.add_norm(residual, ffn, next_norm, f"{name}_next")
        return residual, hidden

    def _normed(self, hidden: ir.Value, norm: Norm | None) -> ir.Value:
        return self._blocks.norm(hidden, norm, f"{hidden.name}_normed") if norm else hidden

    def _attention(self, index: int, attention: Attention, hidden: ir.Value) -> ir.Value:
        query, key, value = self._normed_heads(f"layer_{index}", attention, hidden)
        presents = [
            tensor(f"present_{kind}_{index}", self._store.compute, self._cache_shape())
            for kind in ("key", "value")
        ]
        attended = ir.Value(name=f"layer_{index}_attended")
        pasts = self._pasts[2 * index : 2 * index + 2]
        inputs = [query, key, value, *pasts, self._lengths, self._longest]
        if attention.rotary is not None:
            number = self._rotations.index(attention.rotary)
            inputs += [self._blocks.tensor(f"{table}_{number}") for table in ("cosines", "sines")]
        attributes = self._attention_attributes(attention)
        self._writer.emit("GroupQueryAttention", inputs, [attended, *presents], attributes, CONTRIB)
        self._presents += presents
        return attended

    def _attention_attributes(self, attention: Attention) -> dict[str, int | float]:
        attributes: dict[str, int | float] = {
            "num_heads": self._arch.heads,
            "kv_num_heads": self._arch.kv_heads,
            "do_rotary": int(attention.rotary is not None),
        }
        if attention.scale != self._arch.head_dim**-0.5:
            attributes["scale"] = attention.scale
        if attention.window is not None:
            attributes["local_window_size"] = attention.window
        return attributes

    def _normed_heads(
        self, name: str, attention: Attention, hidden: ir.Value
    ) -> tuple[ir.Value, ir.Value | None, ir.Value | None]:
        """q, k and v as three values where q and k are normed per head; else packed in the first."""
        if attention.q_norm is None or attention.k_norm is None:
            return self._blocks.project(hidden, attention.qkv), None, None
        names = [f"{name}_{part}" for part in ("query", "key", "value")]
        query, key, value = self._blocks.parts(hidden, attention.qkv, names)
        query = self._blocks.head_norm(query, attention.q_norm, f"{query.name}_normed")
        return query, self._blocks.head_norm(key, attention.k_norm, f"{key.name}_normed"), value
