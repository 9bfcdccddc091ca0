"""Runs an engine's graph with its KV cache bound in place, as the server does, for verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from build.architecture.parts import Architecture
from build.dialects.inference import open_session
from build.quantise import Floats

_CPU = ("cpu", 0)


class Session:
    """`rows` sequences of up to `capacity` positions; `lengths` holds how many each has."""

    def __init__(self, graph: Path, architecture: Architecture, capacity: int, rows: int = 1) -> None:
        self._session = open_session(graph)
        self._dtype = cache_dtype(self._session)
        shape = (rows, architecture.kv_heads, capacity, architecture.head_dim)
        self.capacity = capacity
        self.lengths = np.zeros(rows, np.int32)
        self._caches = {
            f"{kind}_{index}": np.zeros(shape, self._dtype)
            for index in range(len(architecture.layers))
            for kind in ("key", "value")
        }

    def prefill(self, row: int, ids: NDArray[np.int64]) -> Floats:
        """Logits [1 or seq, vocab] after appending the ids to one row."""
        logits: Floats = self._run(slice(row, row + 1), ids[None, :])[0]
        return logits

    def decode(self, ids: NDArray[np.int64]) -> Floats:
        """Logits [n, vocab] after appending one id to each of the first n rows."""
        logits: Floats = self._run(slice(0, len(ids)), ids[:, None])[:, -1]
        return logits

    def reset(self) -> None:
        self.lengths[:] = 0

    def _run(self, rows: slice, ids: NDArray[np.int64]) -> Floats:
        self.lengths[rows] += ids.shape[1]
        lengths = self.lengths[rows]
        assert lengths.max() <= self.capacity
        binding = self._session.io_binding()
        feeds = {
            "input_ids": np.ascontiguousarray(ids, np.int64),
            "seqlens_k": lengths - np.int32(1),
            "total_sequence_length": np.array(lengths.max(), np.int32),
        }
        for name, array in feeds.items():  # bound by address: `feeds` keeps them alive
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits", "cpu")  # first, so that it is output 0 below
        for name, cache in self._caches.items():
            view = cache[rows]
            place = (self._dtype, view.shape, view.ctypes.data)
            binding.bind_input(f"past_{name}", *_CPU, *place)
            binding.bind_output(f"present_{name}", *_CPU, *place)
        self._session.run_with_iobinding(binding)
        logits: Floats = binding.get_outputs()[0].numpy()
        return logits


def cache_dtype(session: ort.InferenceSession) -> type[np.float16] | type[np.float32]:
    """Of the keys and values that the graph reads and writes."""
    kinds = {value.name: value.type for value in session.get_inputs()}
    return np.float16 if kinds["past_key_0"] == "tensor(float16)" else np.float32
