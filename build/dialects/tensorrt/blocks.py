"""Products, norms and feed-forward networks in standard operators that TensorRT parses."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from build.architecture.parts import Activation, FeedForward, Norm, NormKind, Projection
from build.dialects.contents import Scored
from build.dialects.tensorrt.store import Store, StoredProjection
from build.dialects.writer import Writer, tensor

OPSETS = {"": 24}
IR_VERSION = 11
_ACTIVATIONS: dict[Activation, tuple[str, dict[str, str]]] = {
    Activation.GELU: ("Gelu", {"approximate": "none"}),
    Activation.GELU_TANH: ("Gelu", {"approximate": "tanh"}),
    Activation.RELU: ("Relu", {}),
}


class Blocks:
    """Parts of a graph over stored weights; tensors are [batch, seq, hidden]."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self.writer = writer
        self.store = store

    def tensor(self, name: str) -> ir.Value:
        return self.writer.weight(self.store.tensors[name])

    def project(self, hidden: ir.Value, projection: Projection, name: str | None = None) -> ir.Value:
        stored = self.store.projections[projection]
        name = name or f"{stored.name}_product"
        weight = self._weight(stored)
        if stored.bias is None:
            return self.writer.op("MatMul", [hidden, weight], name)
        product = self.writer.op("MatMul", [hidden, weight], f"{name}_unbiased")
        return self.writer.op("Add", [product, self.writer.weight(stored.bias)], name)

    def _weight(self, stored: StoredProjection) -> ir.Value:
        """The weight [columns, rows] in the type that is computed in."""
        weight = self.writer.weight(stored.weight)
        if stored.turned:
            return self.writer.op("Transpose", [weight], f"{stored.name}_turned", {"perm": [1, 0]})
        if stored.scales is None:
            return weight
        attributes = {"axis": 0, "block_size": stored.block_size} if stored.block_size else {"axis": 1}
        inputs = [weight, self.writer.weight(stored.scales)]
        return self.writer.op("DequantizeLinear", inputs, f"{stored.name}_restored", attributes)

    def split(self, packed: ir.Value, rows: tuple[int, ...], names: list[str]) -> list[ir.Value]:
        """The products of a projection's parts."""
        parts = [ir.Value(name=name) for name in names]
        sizes = self.writer.integers(f"rows_{'_'.join(map(str, rows))}", list(rows))
        self.writer.emit("Split", [packed, sizes], parts, {"axis": -1})
        return parts

    def feed_forward(self, name: str, ffn: FeedForward, hidden: ir.Value) -> ir.Value:
        inner = self.project(hidden, ffn.inner)
        if not ffn.gated:
            return self.project(self._active(f"{name}_active", ffn.activation, inner), ffn.outer)
        gate, up = self.split(inner, ffn.inner.rows, [f"{name}_gate", f"{name}_up"])
        active = self._active(f"{name}_active", ffn.activation, gate)
        return self.project(self.writer.op("Mul", [active, up], f"{name}_gated"), ffn.outer)

    def _active(self, name: str, activation: Activation, hidden: ir.Value) -> ir.Value:
        """SiLU in two operators that TensorRT fuses: it knows Swish from version 11 only."""
        if activation is Activation.SILU:
            gate = self.writer.op("Sigmoid", [hidden], f"{name}_sigmoid")
            return self.writer.op("Mul", [hidden, gate], name)
        kind, attributes = _ACTIVATIONS[activation]
        return self.writer.op(kind, [hidden], name, attributes)

    def norm(self, hidden: ir.Value, norm: Norm, name: str) -> ir.Value:
        attributes = {"axis": -1, "epsilon": norm.epsilon, "stash_type": 1}
        kind = "RMSNormalization" if norm.kind is NormKind.RMS else "LayerNormalization"
        return self.writer.op(kind, [hidden, *map(self.tensor, norm.tensors())], name, attributes)

    def maybe_norm(self, hidden: ir.Value, norm: Norm | None) -> ir.Value:
        return self.norm(hidden, norm, f"{hidden.name}_normed") if norm else hidden

    def add(self, left: ir.Value, right: ir.Value, name: str) -> ir.Value:
        return self.writer.op("Add", [left, right], name)

    def embed(self, ids: ir.Value, table: str, scale: float) -> ir.Value:
        rows = self.writer.op("Gather", [self.tensor(table), ids], "embedded")
        return self.scaled(rows, scale, "embedded_scaled")

    def placed(self, table: str, positions: ir.Value, offset: int) -> ir.Value:
        """The rows of positions in a table, whose position 0 is row `offset`."""
        if offset:
            rows = self.writer.integers("first_row", offset)
            positions = self.writer.op("Add", [positions, rows], "position_rows")
        return self.writer.op("Gather", [self.tensor(table), positions], "placed")

    def scaled(self, hidden: ir.Value, by: float, name: str) -> ir.Value:
        """The values times a number."""
        if by == 1.0:
            return hidden
        factor = self.writer.constant(f"{name}_factor", np.array(by, self.store.dtype))
        return self.writer.op("Mul", [hidden, factor], name)

    def last_position(self, hidden: ir.Value, name: str) -> ir.Value:
        bounds = [
            self.writer.integers("last", [-1]),
            self.writer.integers("end", [np.iinfo(np.int64).max]),
            self.writer.integers("position_axis", [1]),
        ]
        return self.writer.op("Slice", [hidden, *bounds], name)

    def logits(self, hidden: ir.Value, head: Projection, scored: Scored) -> ir.Value:
        """The logits, FLOAT whatever type the graph computes in."""
        product = self.project(hidden, head, "logits_narrow")
        seq: str | int = 1 if scored is Scored.LAST else "seq"
        logits = tensor("logits", ir.DataType.FLOAT, ["batch", seq, sum(head.rows)])
        self.writer.emit("Cast", [product], [logits], {"to": int(ir.DataType.FLOAT)})
        return logits
