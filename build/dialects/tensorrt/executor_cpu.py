"""Runs a graph of this dialect with ONNX Runtime on a CPU, its caches bound in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from build.dialects.inference import open_session
from build.dialects.tensorrt.cpu import runnable
from build.dialects.tensorrt.session import Feeds, Profile
from build.quantise import Floats

_CPU = ("cpu", 0)
_OWN, _CROSS = _CACHES = ("past_", "cross_")
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
    """Computes what the graph says, in bfloat16 too; writes a file beside it for that."""
    # Else products of int8 weights round their inputs too, which TensorRT does not.
    return open_session(runnable(graph), entries={"session.disable_quant_qdq": "1"})


def _bound(binding: Any, feeds: Feeds) -> dict[str, NDArray[Any]]:
    """Inputs are bound by address: what is returned must live until the run is over."""
    held = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
    for name, value in held.items():
        binding.bind_cpu_input(name, value)
    return held
