"""Products, norms and feed-forward networks in ONNX Runtime's fused operators."""

from __future__ import annotations

import onnx_ir as ir

from build.architecture.parts import Activation, FeedForward, Norm, NormKind, Projection
from build.dialects.onnxruntime.company import Company
from build.dialects.onnxruntime.rounded import RoundedInputs
from build.dialects.onnxruntime.store import Store, StoredProjection
from build.dialects.writer import CONTRIB, SharedBlocks, Writer

OPSETS = {"": 21, CONTRIB: 1}
IR_VERSION = 10
# MatMulNBits: 4 multiplies int8 by int8, which is the fast path of the CPU.
_INT8_ACTIVATIONS = 4
# Products in 4 bits never compute a single row (company.py); those in 8 bits may.
_COMPANY_BITS = 4
# QuickGelu is x * sigmoid(alpha x): with alpha 1 it is SiLU in one pass.
_ACTIVATIONS: dict[Activation, tuple[str, str, dict[str, int | float]]] = {
    Activation.SILU: ("QuickGelu", CONTRIB, {"alpha": 1.0}),
    Activation.GELU: ("Gelu", CONTRIB, {}),
    Activation.GELU_TANH: ("FastGelu", CONTRIB, {}),
    Activation.RELU: ("Relu", "", {}),
}


class Blocks(SharedBlocks[Store]):
    """Parts of a graph over stored weights; tensors are [batch, seq, hidden] for `ids` [batch, seq]."""

    def __init__(self, writer: Writer, store: Store, ids: ir.Value) -> None:
        super().__init__(writer, store)
        self._company = Company(writer, ids)

    def project(self, hidden: ir.Value, projection: Projection, name: str | None = None) -> ir.Value:
        if projection in self.store.rounded:
            (product,) = self._rounded(hidden, projection, [name] if name else None)
            return product
        stored = self.store.projections[projection]
        name = name or f"{stored.name}_product"
        if stored.scales is None:
            return self._dense(hidden, stored, name)
        if stored.bits != _COMPANY_BITS and stored.offsets is None:
            return self._in_blocks(hidden, stored, name)
        copied = self._company.copied(hidden, f"{name}_inputs")
        product = self._in_blocks(copied, stored, f"{name}_copies")
        if stored.offsets is not None:
            by_offsets = [self._block_sums(copied, stored), self.writer.weight(stored.offsets)]
            added = self.writer.op("MatMul", by_offsets, f"{name}_of_offsets")
            product = self.writer.op("Add", [product, added], f"{name}_shifted")
        return self._company.first(product, name)

    def _in_blocks(self, hidden: ir.Value, stored: StoredProjection, name: str) -> ir.Value:
        """The product with the levels, each times its block's scale."""
        assert stored.scales is not None
        inputs: list[ir.Value | None] = [hidden, *map(self.writer.weight, (stored.weight, stored.scales))]
        if stored.bias is not None:
            inputs += [None, None, self.writer.weight(stored.bias)]
        attributes = {
            "N": stored.rows,
            "K": stored.columns,
            "bits": stored.bits,
            "block_size": stored.block_size,
            "accuracy_level": _INT8_ACTIVATIONS,
        }
        return self.writer.op("MatMulNBits", inputs, name, attributes, CONTRIB)

    def _block_sums(self, hidden: ir.Value, stored: StoredProjection) -> ir.Value:
        """[batch, seq, blocks]. ONNX Runtime takes offsets of its own as floats too, but then it
        unpacks the whole weight at every call.
        """
        shape = self.writer.integers(f"blocks_of_{stored.block_size}", [0, 0, -1, stored.block_size])
        blocks = self.writer.op("Reshape", [hidden, shape], f"{hidden.name}_blocks")
        last = self.writer.integers("last_axis", [-1])
        return self.writer.op("ReduceSum", [blocks, last], f"{hidden.name}_sums", {"keepdims": 0})

    def keep_last(self, *hidden: ir.Value, batch: ir.Value) -> list[ir.Value]:
        """The last position of each value; products from now on have a row for each element of `batch`."""
        self._company = Company(self.writer, batch)
        return [self.last_position(each, f"{each.name}_last") for each in hidden]

    def _dense(self, hidden: ir.Value, stored: StoredProjection, name: str) -> ir.Value:
        inputs = [hidden, self.writer.weight(stored.weight)]
        product_name = name if stored.bias is None else f"{name}_unbiased"
        product = self.writer.op("FusedMatMul", inputs, product_name, {"transB": 1}, CONTRIB)
        if stored.bias is None:
            return product
        return self.writer.op("Add", [product, self.writer.weight(stored.bias)], name)

    def parts(self, hidden: ir.Value, projection: Projection, names: list[str]) -> list[ir.Value]:
        """The products of a projection's parts."""
        if projection in self.store.rounded:
            return self._rounded(hidden, projection, names)
        return self.split(self.project(hidden, projection), projection.rows, names)

    def _rounded(
        self, hidden: ir.Value, projection: Projection, names: list[str] | None = None
    ) -> list[ir.Value]:
        stored, rounding = self.store.rounded[projection], self.store.rounding
        assert rounding is not None
        names = names or [f"{each.name}_product" for each in stored]
        rounded = RoundedInputs(self.writer, hidden, stored[0].name, projection in rounding.spread)
        return [rounded.times(each, name) for each, name in zip(stored, names, strict=True)]

    def feed_forward(self, name: str, ffn: FeedForward, hidden: ir.Value) -> ir.Value:
        kind, domain, attributes = _ACTIVATIONS[ffn.activation]
        if not ffn.gated:
            inner = self.project(hidden, ffn.inner)
            active = self.writer.op(kind, [inner], f"{name}_active", attributes, domain)
            return self.project(active, ffn.outer)
        gate, up = self.parts(hidden, ffn.inner, [f"{name}_gate", f"{name}_up"])
        active = self.writer.op(kind, [gate], f"{name}_active", attributes, domain)
        return self.project(self.writer.op("Mul", [active, up], f"{name}_gated"), ffn.outer)

    def norm(self, hidden: ir.Value, norm: Norm, name: str) -> ir.Value:
        attributes = {"axis": -1, "epsilon": norm.epsilon, "stash_type": 1}
        inputs = [hidden, *map(self.tensor, norm.tensors())]
        kind = "SimplifiedLayerNormalization" if norm.kind is NormKind.RMS else "LayerNormalization"
        return self.writer.op(kind, inputs, name, attributes)

    def add_norm(
        self, residual: ir.Value, change: ir.Value, norm: Norm, name: str
    ) -> tuple[ir.Value, ir.Value]:
        """The norm of the sum, and the sum itself."""
        normed, total = ir.Value(name=f"{name}_normed"), ir.Value(name=f"{name}_residual")
        unused = [ir.Value(name=""), ir.Value(name="")]
        rms = norm.kind is NormKind.RMS
        self.writer.emit(
            "SkipSimplifiedLayerNormalization" if rms else "SkipLayerNormalization",
            [residual, change, *map(self.tensor, norm.tensors())],
            [normed, *unused, total],
            {"epsilon": norm.epsilon},
            CONTRIB,
        )
        return normed, total

    def head_norm(self, part: ir.Value, norm: Norm, name: str) -> ir.Value:
        """The norm of each head of [batch, seq, heads * size]."""
        per_head = self.writer.integers(f"per_head_{norm.size}", [0, 0, -1, norm.size])
        flat = self.writer.integers("flat", [0, 0, -1])
        heads = self.writer.op("Reshape", [part, per_head], f"{name}_heads")
        return self.writer.op("Reshape", [self.norm(heads, norm, name), flat], f"{name}_flat")

    def logits(self, hidden: ir.Value, head: Projection, seq: str | int) -> ir.Value:
        """The logits, FLOAT [batch, seq, vocab] whatever type the graph computes in."""
        if self.store.compute is ir.DataType.FLOAT:
            logits = self.project(hidden, head, "logits")
        else:
            product = self.project(hidden, head, "logits_half")
            logits = self.writer.op("Cast", [product], "logits", {"to": int(ir.DataType.FLOAT)})
        logits.type = ir.TensorType(ir.DataType.FLOAT)
        logits.shape = ir.Shape(["batch", seq, sum(head.rows)])
        return logits
