"""Writes one ONNX graph: its nodes, constants and stored weights, and parts that both dialects share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import onnx_ir as ir

from build.dialects.store import Store

CONTRIB = "com.microsoft"

S = TypeVar("S", bound=Store)
Attributes = Mapping[str, int | float | str | Sequence[int]]


class Writer:
    """`opsets` maps a domain to its version; `ir_version` is that of the ONNX file."""

    def __init__(self, opsets: Mapping[str, int], ir_version: int) -> None:
        self._opsets = opsets
        self._ir_version = ir_version
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}

    def model(self, name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports=dict(self._opsets),
            name=name,
        )
        return ir.Model(graph, ir_version=self._ir_version, producer_name="halimede")

    def weight(self, stored: ir.Value) -> ir.Value:
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

    def integers(self, name: str, values: list[int] | int) -> ir.Value:
        """An INT64 constant, of rank 1 for a list and 0 for a number."""
        return self.constant(name, np.array(values, np.int64))

    def constant(self, name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        """The same name is the same constant."""
        if name not in self._initializers:
            tensor = ir.tensor(values, name=name)
            self._initializers[name] = ir.Value(
                name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
        return self._initializers[name]

    def op(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Attributes | None = None,
        domain: str = "",
    ) -> ir.Value:
        """A node with one output; both have the same name."""
        output = ir.Value(name=name)
        self.emit(kind, inputs, [output], attributes, domain)
        return output

    def emit(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        outputs: Sequence[ir.Value],
        attributes: Attributes | None = None,
        domain: str = "",
    ) -> None:
        name = f"{outputs[0].name}_{kind}"
        node = ir.node(kind, inputs, dict(attributes or {}), domain=domain, outputs=outputs, name=name)
        self._nodes.append(node)


def tensor(name: str, dtype: ir.DataType, shape: Sequence[str | int]) -> ir.Value:
    """An input or output of a graph."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


class SharedBlocks(Generic[S]):
    """The parts of a graph over stored weights that are the same in both dialects."""

    def __init__(self, writer: Writer, store: S) -> None:
        self.writer = writer
        self.store = store

    def tensor(self, name: str) -> ir.Value:
        return self.writer.weight(self.store.tensors[name])

    def split(self, packed: ir.Value, rows: Sequence[int], names: Sequence[str]) -> list[ir.Value]:
        """The products of a projection's parts, which are stacked in `packed`."""
        parts = [ir.Value(name=name) for name in names]
        sizes = self.writer.integers(f"rows_{'_'.join(map(str, rows))}", list(rows))
        self.writer.emit("Split", [packed, sizes], parts, {"axis": -1})
        return parts

    def scaled(self, values: ir.Value, by: float, name: str) -> ir.Value:
        """The values times a number, in the type that the graph computes in."""
        if by == 1.0:
            return values
        factor = self.writer.constant(f"{name}_factor", np.array(by, self.store.dtype))
        return self.writer.op("Mul", [values, factor], name)

    def last_position(self, hidden: ir.Value, name: str) -> ir.Value:
        bounds = [
            self.writer.integers("last", [-1]),
            self.writer.integers("end", [np.iinfo(np.int64).max]),
            self.writer.integers("position_axis", [1]),
        ]
        return self.writer.op("Slice", [hidden, *bounds], name)
