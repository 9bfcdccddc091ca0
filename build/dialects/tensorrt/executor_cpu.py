"""Runs a graph of this dialect with ONNX Runtime on a CPU, its caches bound in place.

ONNX Runtime has no bfloat16 arithmetic there: each operation is computed in float32 and its result rounded to
bfloat16, as on a GPU, so that the figures of the CPU predict those of the GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from build.dialects.inference import open_session
from build.dialects.tensorrt.session import Feeds, Profile
from build.quantise import Floats

_CPU = ("cpu", 0)
_OWN, _CROSS = _CACHES = ("past_", "cross_")
# These move values and compute none: ONNX Runtime has them for every type.
_MOVES = {"Cast", "Gather", "Reshape", "Slice", "Split", "TensorScatter", "Transpose"}
_NARROW = ir.DataType.BFLOAT16
_TYPES = {
    "tensor(float)": ir.DataType.FLOAT,
    "tensor(float16)": ir.DataType.FLOAT16,
    "tensor(bfloat16)": ir.DataType.BFLOAT16,
}


class CpuExecutor:
    """`rows` is how many sequences its caches hold; `encoder` is the other graph of an encoder-decoder."""

    def __init__(self, graph: Path, rows: int = 1, encoder: Path | None = None) -> None:
        self._session = open_graph(graph)
        self._encoder = open_graph(encoder) if encoder else None
        inputs = {value.name: value for value in self._session.get_inputs()}
        self.inputs = frozenset(inputs)
        own, cross = ([name for name in inputs if name.startswith(kind)] for kind in _CACHES)
        self.capacity = int(inputs[own[0]].shape[2])
        self.source_capacity = int(inputs[cross[0]].shape[2]) if cross else 0
        self._types = {name: _TYPES[inputs[name].type] for name in (*own, *cross)}
        self._caches = {
            name: np.zeros((rows, *inputs[name].shape[1:]), kind.numpy())
            for name, kind in self._types.items()
        }

    def encode(self, feeds: Feeds, row: int) -> None:
        assert self._encoder is not None
        binding = self._encoder.io_binding()
        held = _bound(binding, feeds)
        count = held["input_ids"].shape[1]
        encoded = {}
        for name, cache in self._caches.items():
            if name.startswith(_CROSS):
                encoded[name] = np.empty((1, cache.shape[1], count, cache.shape[3]), cache.dtype)
                binding.bind_output(name, *self._place(name, encoded[name]))
        self._encoder.run_with_iobinding(binding)
        for name, values in encoded.items():
            self._caches[name][row, :, :count] = values[0]

    def run(self, _profile: Profile, feeds: Feeds, rows: slice) -> Floats:
        """A CPU has no profiles: one session runs every shape."""
        binding = self._session.io_binding()
        held = _bound(binding, feeds)
        binding.bind_output("logits", "cpu")  # first, so that it is output 0 below
        for name, cache in self._caches.items():
            place = self._place(name, cache[rows])
            binding.bind_input(name, *place)
            if not name.startswith(_CROSS):
                binding.bind_output(name.replace(_OWN, "present_"), *place)
        self._session.run_with_iobinding(binding)
        logits: Any = binding.get_outputs()[0].numpy()
        assert held
        return np.asarray(logits, np.float32)

    def _place(self, name: str, array: NDArray[Any]) -> tuple[Any, ...]:
        return (*_CPU, int(self._types[name]), array.shape, array.ctypes.data)


def open_graph(graph: Path) -> ort.InferenceSession:
    """A session that computes what the graph says; for bfloat16 it writes another file next to the graph."""
    # Else products of int8 weights round their inputs too, which TensorRT does not.
    return open_session(_runnable(graph), entries={"session.disable_quant_qdq": "1"})


def _bound(binding: Any, feeds: Feeds) -> dict[str, NDArray[Any]]:
    """Binds the inputs by address: the arrays returned must live until the run is over."""
    held = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
    for name, value in held.items():
        binding.bind_cpu_input(name, value)
    return held


def _runnable(graph: Path) -> Path:
    """The graph itself, or a new file over the same weights with its bfloat16 arithmetic in float32."""
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
    """Casts a node's inputs to float32 and its outputs back; the node's readers then read rounded values."""
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
