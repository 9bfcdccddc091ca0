"""Runs a graph of this dialect with ONNX Runtime on a CPU, its caches bound in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from build.dialects.tensorrt.cpu import runnable
from build.dialects.tensorrt.session import Feeds, Profile
from build.quantise import Floats

_CPU = ("cpu", 0)
_TYPES = {
    "tensor(float)": ir.DataType.FLOAT,
    "tensor(float16)": ir.DataType.FLOAT16,
    "tensor(bfloat16)": ir.DataType.BFLOAT16,
}


class CpuExecutor:
    """`rows` is how many sequences its caches hold."""

    def __init__(self, graph: Path, rows: int = 1) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Else products of int8 weights round their inputs too, which TensorRT does not.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        path = runnable(graph)
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {value.name: value for value in self._session.get_inputs()}
        self.inputs = frozenset(inputs)
        caches = {name: value for name, value in inputs.items() if name.startswith("past_")}
        self.capacity = int(next(iter(caches.values())).shape[2])
        self._types = {name: _TYPES[value.type] for name, value in caches.items()}
        self._caches = {
            name: np.zeros((rows, *value.shape[1:]), self._types[name].numpy())
            for name, value in caches.items()
        }

    def run(self, _profile: Profile, feeds: Feeds, rows: slice) -> Floats:
        """A CPU has no profiles: one session runs every shape."""
        binding = self._session.io_binding()
        held = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        for name, value in held.items():  # bound by address: `held` keeps them alive
            binding.bind_cpu_input(name, value)
        binding.bind_output("logits", "cpu")  # first, so that it is output 0 below
        for name, cache in self._caches.items():
            view = cache[rows]
            place = (int(self._types[name]), view.shape, view.ctypes.data)
            binding.bind_input(name, *_CPU, *place)
            binding.bind_output(name.replace("past_", "present_"), *_CPU, *place)
        self._session.run_with_iobinding(binding)
        logits: Any = binding.get_outputs()[0].numpy()
        return np.asarray(logits, np.float32)
