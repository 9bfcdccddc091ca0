"""The graph for ONNX Runtime's fused operators, on CPU and CUDA.

inputs   input_ids INT64 [batch, seq]; seqlens_k INT32 [batch], a row's length after this step minus 1;
         total_sequence_length INT32 [], the longest row's length after this step;
         past_key_i, past_value_i FLOAT [batch, kv_heads, capacity, head_dim]
outputs  logits FLOAT [batch, 1, vocab] of the last position, or [batch, seq, vocab] for all;
         present_key_i, present_value_i, shaped as the past: bind one address as both.

A decode step is seq 1 at any batch, rows of any length; a prefill is batch 1, any seq, over any past.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
import onnx_ir as ir

from build.architecture import Architecture
from build.dialects.onnxruntime.store import StoredLayer, StoredModel, StoredProjection
from build.errors import Unsupported

_OPSET = 21
_IR_VERSION = 10
_CONTRIB = "com.microsoft"
# MatMulNBits: 4 multiplies int8 by int8, which is the fast path of the CPU.
_INT8_ACTIVATIONS = 4


class Positions(Enum):
    """Which positions get logits: serving samples from the last, verification scores all."""

    LAST = "last"
    ALL = "all"


def require_runnable(architecture: Architecture) -> None:
    """Unsupported where the operators of this dialect cannot run the model."""
    if architecture.head_dim % 16:
        raise Unsupported(
            f"head_dim {architecture.head_dim} is not supported: ONNX Runtime's GroupQueryAttention"
            " needs a multiple of 16 for rotary embeddings"
        )


def build_graph(architecture: Architecture, model: StoredModel, positions: Positions) -> ir.Model:
    """The graph over stored weights; variants of one model share them."""
    return _GraphBuilder(architecture, model, positions).build()


class _GraphBuilder:
    def __init__(self, architecture: Architecture, model: StoredModel, positions: Positions) -> None:
        self._arch = architecture
        self._model = model
        self._positions = positions
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._presents: list[ir.Value] = []
        self._ids = _tensor("input_ids", ir.DataType.INT64, ["batch", "seq"])
        self._lengths = _tensor("seqlens_k", ir.DataType.INT32, ["batch"])
        self._longest = _tensor("total_sequence_length", ir.DataType.INT32, [])
        self._pasts = [
            _tensor(f"past_{kind}_{index}", ir.DataType.FLOAT, self._cache_shape())
            for index in range(len(model.layers))
            for kind in ("key", "value")
        ]

    def build(self) -> ir.Model:
        logits = self._logits()
        graph = ir.Graph(
            [self._ids, self._lengths, self._longest, *self._pasts],
            [logits, *self._presents],
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports={"": _OPSET, _CONTRIB: 1},
            name="decoder",
        )
        return ir.Model(graph, ir_version=_IR_VERSION, producer_name="halimede")

    def _cache_shape(self) -> list[str | int]:
        return ["batch", self._arch.kv_heads, "capacity", self._arch.head_dim]

    def _logits(self) -> ir.Value:
        residual = self._op("Gather", [self._weight(self._model.embedding), self._ids], "embedded")
        first, *rest = [layer.input_norm for layer in self._model.layers]
        hidden = self._norm(residual, first, "layer_0_input")
        following = [*rest, self._model.final_norm]
        for index, (layer, norm) in enumerate(zip(self._model.layers, following, strict=True)):
            residual, hidden = self._layer(index, layer, norm, residual, hidden)
        logits = self._project(hidden, self._model.head, "logits")
        seq = 1 if self._positions is Positions.LAST else "seq"
        logits.type = ir.TensorType(ir.DataType.FLOAT)
        logits.shape = ir.Shape(["batch", seq, self._arch.vocab_size])
        return logits

    def _layer(
        self, index: int, layer: StoredLayer, norm: ir.Value, residual: ir.Value, hidden: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """One block; returns the residual stream and what the next norm makes of it."""
        name = f"layer_{index}"
        attended = self._attention(index, layer, hidden)
        if index == len(self._model.layers) - 1 and self._positions is Positions.LAST:
            attended = self._last_position(attended, f"{name}_attended_last")
            residual = self._last_position(residual, f"{name}_residual_last")
        output = self._project(attended, layer.output)
        hidden, residual = self._add_norm(residual, output, layer.post_norm, f"{name}_post")
        ffn = self._feed_forward(name, layer, hidden)
        hidden, residual = self._add_norm(residual, ffn, norm, f"{name}_next")
        return residual, hidden

    def _attention(self, index: int, layer: StoredLayer, hidden: ir.Value) -> ir.Value:
        packed = self._project(hidden, layer.qkv)
        query, key, value = self._normed_heads(index, layer, packed)
        attributes: dict[str, int] = {
            "num_heads": self._arch.heads,
            "kv_num_heads": self._arch.kv_heads,
            "do_rotary": 1,
        }
        if layer.window is not None:
            attributes["local_window_size"] = layer.window
        presents = [
            _tensor(f"present_{kind}_{index}", ir.DataType.FLOAT, self._cache_shape())
            for kind in ("key", "value")
        ]
        attended = ir.Value(name=f"layer_{index}_attended")
        inputs = [
            query,
            key,
            value,
            *self._pasts[2 * index : 2 * index + 2],
            self._lengths,
            self._longest,
            self._weight(self._model.cosines),
            self._weight(self._model.sines),
        ]
        self._emit("GroupQueryAttention", inputs, [attended, *presents], attributes, _CONTRIB)
        self._presents += presents
        return attended

    def _normed_heads(
        self, index: int, layer: StoredLayer, packed: ir.Value
    ) -> tuple[ir.Value, ir.Value | None, ir.Value | None]:
        """q, k and v apart where q and k are normed per head; else the operator takes them packed."""
        if layer.qk_norms is None:
            return packed, None, None
        name = f"layer_{index}"
        size = self._arch.head_dim
        rows = [self._arch.heads * size, self._arch.kv_heads * size, self._arch.kv_heads * size]
        parts = [ir.Value(name=f"{name}_{part}") for part in ("query", "key", "value")]
        sizes = self._constant(f"{name}_qkv_rows", rows)
        self._emit("Split", [packed, sizes], parts, {"axis": -1})
        normed = [
            self._head_norm(part, norm, f"{part.name}_normed")
            for part, norm in zip(parts, layer.qk_norms, strict=False)
        ]
        return normed[0], normed[1], parts[2]

    def _head_norm(self, part: ir.Value, norm: ir.Value, name: str) -> ir.Value:
        per_head = self._constant("per_head", [0, 0, -1, self._arch.head_dim])
        flat = self._constant("flat", [0, 0, -1])
        heads = self._op("Reshape", [part, per_head], f"{name}_heads")
        return self._op("Reshape", [self._norm(heads, norm, name), flat], f"{name}_flat")

    def _feed_forward(self, name: str, layer: StoredLayer, hidden: ir.Value) -> ir.Value:
        both = self._project(hidden, layer.gate_up)
        gate, up = ir.Value(name=f"{name}_gate"), ir.Value(name=f"{name}_up")
        self._emit("Split", [both], [gate, up], {"axis": -1, "num_outputs": 2})
        # QuickGelu is x * sigmoid(alpha x): with alpha 1 it is SiLU in one pass.
        active = self._op("QuickGelu", [gate], f"{name}_silu", {"alpha": 1.0}, _CONTRIB)
        return self._project(self._op("Mul", [active, up], f"{name}_gated"), layer.down)

    def _project(self, hidden: ir.Value, stored: StoredProjection, name: str | None = None) -> ir.Value:
        name = name or f"{stored.name}_product"
        if stored.scales is None:
            return self._dense(hidden, stored, name)
        inputs: list[ir.Value | None] = [
            hidden,
            self._weight(stored.weight),
            self._weight(stored.scales),
        ]
        if stored.bias is not None:
            inputs += [None, None, self._weight(stored.bias)]
        attributes = {
            "N": stored.rows,
            "K": stored.columns,
            "bits": stored.bits,
            "block_size": stored.block_size,
            "accuracy_level": _INT8_ACTIVATIONS,
        }
        return self._op("MatMulNBits", inputs, name, attributes, _CONTRIB)

    def _dense(self, hidden: ir.Value, stored: StoredProjection, name: str) -> ir.Value:
        inputs = [hidden, self._weight(stored.weight)]
        product_name = name if stored.bias is None else f"{name}_unbiased"
        product = self._op("FusedMatMul", inputs, product_name, {"transB": 1}, _CONTRIB)
        if stored.bias is None:
            return product
        return self._op("Add", [product, self._weight(stored.bias)], name)

    def _last_position(self, hidden: ir.Value, name: str) -> ir.Value:
        bounds = [
            self._constant("last", [-1]),
            self._constant("end", [np.iinfo(np.int64).max]),
            self._constant("position_axis", [1]),
        ]
        return self._op("Slice", [hidden, *bounds], name)

    def _norm(self, hidden: ir.Value, weight: ir.Value, name: str) -> ir.Value:
        attributes = {"axis": -1, "epsilon": self._arch.norm_epsilon, "stash_type": 1}
        inputs = [hidden, self._weight(weight)]
        return self._op("SimplifiedLayerNormalization", inputs, name, attributes)

    def _add_norm(
        self, residual: ir.Value, change: ir.Value, weight: ir.Value, name: str
    ) -> tuple[ir.Value, ir.Value]:
        """(norm of the sum, the sum)"""
        normed, total = ir.Value(name=f"{name}_normed"), ir.Value(name=f"{name}_residual")
        unused = [ir.Value(name=""), ir.Value(name="")]
        self._emit(
            "SkipSimplifiedLayerNormalization",
            [residual, change, self._weight(weight)],
            [normed, *unused, total],
            {"epsilon": self._arch.norm_epsilon},
            _CONTRIB,
        )
        return normed, total

    def _weight(self, stored: ir.Value) -> ir.Value:
        """This graph's own handle on a stored tensor: an IR value belongs to one graph."""
        assert stored.name is not None
        if stored.name not in self._initializers:
            self._initializers[stored.name] = ir.Value(
                name=stored.name,
                shape=stored.shape,
                type=stored.type,
                const_value=stored.const_value,
            )
        return self._initializers[stored.name]

    def _constant(self, name: str, values: list[int]) -> ir.Value:
        if name not in self._initializers:
            tensor = ir.tensor(np.array(values, np.int64), name=name)
            self._initializers[name] = ir.Value(
                name=name,
                shape=ir.Shape([len(values)]),
                type=ir.TensorType(ir.DataType.INT64),
                const_value=tensor,
            )
        return self._initializers[name]

    def _op(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: dict[str, int | float] | dict[str, int] | dict[str, float] | None = None,
        domain: str = "",
    ) -> ir.Value:
        output = ir.Value(name=name)
        self._emit(kind, inputs, [output], attributes, domain)
        return output

    def _emit(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        outputs: Sequence[ir.Value],
        attributes: dict[str, int | float] | dict[str, int] | dict[str, float] | None = None,
        domain: str = "",
    ) -> None:
        name = f"{outputs[0].name}_{kind}"
        node = ir.node(kind, inputs, attributes, domain=domain, outputs=outputs, name=name)
        self._nodes.append(node)


def _tensor(name: str, dtype: ir.DataType, shape: Sequence[str | int]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
