"""The rules of docs/gpu.md for an ONNX graph: what TensorRT refuses or silently gets wrong.

Each rule is a function that names the faults it finds; a sound graph has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from build.errors import BuildError

OPSET = 24
_MASK, _PAST_KEY, _LENGTHS = 3, 4, 6  # inputs of Attention
_IGNORED = ("is_causal", "softcap")
# TensorRT binds a row of a cache by its address, which must be a multiple of this.
ALIGNMENT = 256

Rule = Callable[[ir.Graph], Iterator[str]]


def require_sound(model: ir.Model, file: str) -> None:
    """BuildError that names every fault."""
    found = faults(model)
    if found:
        raise BuildError(f"{file}: {'; '.join(found)}: nothing was published")


def faults(model: ir.Model) -> list[str]:
    version = model.opset_imports.get("")
    wrong = [] if version == OPSET else [f"opset {version}, must be {OPSET}"]
    return wrong + [fault for rule in _RULES for fault in rule(model.graph)]


def _every_input_is_consumed(graph: ir.Graph) -> Iterator[str]:
    for value in graph.inputs:
        if not value.uses():
            yield f"no node reads input {value.name}"


def _operators_are_standard(graph: ir.Graph) -> Iterator[str]:
    for node in graph:
        if node.domain not in ("", "ai.onnx"):
            yield f"{node.name}: {node.domain}.{node.op_type} is not a standard operator"


def _every_attention_has_a_mask(graph: ir.Graph) -> Iterator[str]:
    for node in _nodes(graph, "Attention"):
        mask = _input(node, _MASK)
        if mask is None:
            yield f"{node.name} has no mask"
        elif not any(source.dtype is ir.DataType.BOOL for source in _origins(graph, mask)):
            yield f"{node.name}: its mask {mask.name} comes from no input"


def _attention_relies_on_nothing_that_is_ignored(graph: ir.Graph) -> Iterator[str]:
    for node in _nodes(graph, "Attention"):
        for name in _IGNORED:
            attribute = node.attributes.get(name)
            if attribute is not None and attribute.value:
                yield f"{node.name}: TensorRT ignores {name} next to a mask, or refuses it"
        if _input(node, _LENGTHS) is not None:
            yield f"{node.name}: TensorRT ignores nonpad_kv_seqlen"
        if len(node.outputs) > 1 or _input(node, _PAST_KEY) is not None:
            yield f"{node.name}: TensorRT has no past and present of Attention, use TensorScatter"


def _caches_are_written_in_place(graph: ir.Graph) -> Iterator[str]:
    inputs, outputs = set(graph.inputs), set(graph.outputs)
    for node in _nodes(graph, "TensorScatter"):
        past, present = node.inputs[0], node.outputs[0]
        if past not in inputs or present not in outputs:
            yield f"{node.name}: its cache must be an input, and the cache it writes an output"
        mode = node.attributes.get("mode")
        if mode is not None and mode.as_string() != "linear":
            yield f"{node.name}: a cache that is {mode.as_string()} cannot be built"


def _caches_come_in_pairs(graph: ir.Graph) -> Iterator[str]:
    outputs = {value.name: value for value in graph.outputs}
    written = {node.inputs[0]: node.outputs[0] for node in _nodes(graph, "TensorScatter")}
    for past in graph.inputs:
        if not (past.name or "").startswith("past_"):
            continue
        name = f"present_{str(past.name).removeprefix('past_')}"
        present = outputs.get(name)
        if present is None:
            yield f"{past.name}: there is no output {name}"
        elif written.get(past) is not present:
            yield f"{name} is not {past.name} with new keys or values written into it"
        elif (present.dtype, present.shape) != (past.dtype, past.shape):
            yield f"{name} and {past.name} differ in type or shape, yet share an address"


def _caches_are_static(graph: ir.Graph) -> Iterator[str]:
    for value in graph.inputs:
        if not (value.name or "").startswith(("past_", "cross_")):
            continue
        shape = value.shape
        if shape is None or len(shape) != 4:
            yield f"{value.name}: a cache must have 4 dimensions"
        elif not all(isinstance(size, int) for size in shape[1:]):
            yield f"{value.name} {shape}: all but the batch must be static"
        elif _row_bytes(value) % ALIGNMENT:
            yield f"{value.name}: a row of {_row_bytes(value)} bytes is no multiple of {ALIGNMENT}"


def _logits_are_floats(graph: ir.Graph) -> Iterator[str]:
    for value in graph.outputs:
        if value.name == "logits" and value.dtype is not ir.DataType.FLOAT:
            yield f"logits are {value.dtype}, must be FLOAT"


_RULES: tuple[Rule, ...] = (
    _every_input_is_consumed,
    _operators_are_standard,
    _every_attention_has_a_mask,
    _attention_relies_on_nothing_that_is_ignored,
    _caches_are_written_in_place,
    _caches_come_in_pairs,
    _caches_are_static,
    _logits_are_floats,
)


def count(graph: ir.Graph, kind: str) -> int:
    return sum(1 for _ in _nodes(graph, kind))


def _nodes(graph: ir.Graph, kind: str) -> Iterator[ir.Node]:
    return (node for node in graph if node.op_type == kind)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _origins(graph: ir.Graph, value: ir.Value) -> set[ir.Value]:
    """The inputs of the graph from which a value is computed."""
    inputs, found, pending = set(graph.inputs), set(), [value]
    while pending:
        current = pending.pop()
        producer = current.producer()
        if current in inputs:
            found.add(current)
        elif producer is not None:
            pending += [each for each in producer.inputs if each is not None]
    return found


def _row_bytes(value: ir.Value) -> int:
    assert value.shape is not None
    assert value.dtype is not None
    size = value.dtype.itemsize
    for each in value.shape[1:]:
        assert isinstance(each, int)
        size *= each
    return int(size)
