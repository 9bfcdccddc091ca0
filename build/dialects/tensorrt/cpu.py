"""A graph of this dialect as ONNX Runtime can run it on a CPU.

It has no bfloat16 arithmetic there: each operation is computed in float32 and its result rounded to bfloat16,
which is what a GPU does, so that the numbers of the one tell of the other.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

# These move values and compute none: ONNX Runtime has them for every type.
_MOVES = {"Cast", "Gather", "Reshape", "Slice", "Split", "TensorScatter", "Transpose"}
_NARROW = ir.DataType.BFLOAT16


def runnable(graph: Path) -> Path:
    """The graph itself, or one beside it, over the same weights, with its arithmetic in float32."""
    model = ir.load(graph)
    if not any(value.dtype is _NARROW for value in model.graph.initializers.values()):
        return graph
    _widen(model.graph)
    path = graph.with_name(f"cpu_{graph.name}")
    ir.save(model, path)
    return path


def _widen(graph: ir.Graph) -> None:
    narrow = {value for value in (*graph.inputs, *graph.initializers.values()) if value.dtype is _NARROW}
    for node in list(graph):
        if node.op_type == "Cast":
            if node.attributes["to"].as_int() == _NARROW:
                narrow.update(node.outputs)
        elif not narrow.isdisjoint(node.inputs):
            if node.op_type not in _MOVES:
                _compute_wide(graph, node, narrow)
            narrow.update(node.outputs)


def _compute_wide(graph: ir.Graph, node: ir.Node, narrow: set[ir.Value]) -> None:
    """Casts before and after; what reads the node then reads what is rounded."""
    for index, value in enumerate(node.inputs):
        if value in narrow:
            cast = _cast(value, ir.DataType.FLOAT, f"{node.name}_wide_{index}")
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    for value in node.outputs:
        uses = list(value.uses())
        cast = _cast(value, _NARROW, f"{node.name}_rounded")
        graph.insert_after(node, cast)
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])
        narrow.update(cast.outputs)


def _cast(value: ir.Value | None, to: ir.DataType, name: str) -> ir.Node:
    return ir.node("Cast", [value], {"to": int(to)}, outputs=[ir.Value(name=name)], name=f"{name}_Cast")
