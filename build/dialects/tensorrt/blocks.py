"""Products, norms and feed-forward networks in standard operators that TensorRT parses."""

from __future__ import annotations

import onnx_ir as ir

from build.architecture.parts import Activation, FeedForward, Norm, NormKind, Projection
from build.dialects.contents import Scored
from build.dialects.tensorrt.store import Store, StoredProjection
from build.dialects.writer import SharedBlocks, tensor

OPSETS = {"": 24}
IR_VERSION = 11
_ACTIVATIONS: dict[Activation, tuple[str, dict[str, str]]] = {
    Activation.GELU: ("Gelu", {"approximate": "none"}),
    Activation.GELU_TANH: ("Gelu", {"approximate": "tanh"}),
    Activation.RELU: ("Relu", {}),
}


class Blocks(SharedBlocks[Store]):
    """Parts of a graph over stored weights; tensors are [batch, seq, hidden]."""

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

    def logits(self, hidden: ir.Value, head: Projection, scored: Scored) -> ir.Value:
        """The logits, FLOAT whatever type the graph computes in."""
        product = self.project(hidden, head, "logits_narrow")
        seq: str | int = 1 if scored is Scored.LAST else "seq"
        logits = tensor("logits", ir.DataType.FLOAT, ["batch", seq, sum(head.rows)])
        self.writer.emit("Cast", [product], [logits], {"to": int(ir.DataType.FLOAT)})
        return logits
