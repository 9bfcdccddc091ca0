"""Runs an engine's graphs with their caches bound in place, as the server does, for verification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build.dialects.inference import open_session
from build.quantise import Floats, Ids

_CPU = ("cpu", 0)
_OWN, _CROSS = "past_", "cross_"


class Session:
    """`rows` sequences of up to `capacity` positions; `lengths` holds how many each has.

    With an `encoder` each row has a source of up to `source_capacity` tokens; `sources` holds their lengths.
    """

    def __init__(
        self,
        graph: Path,
        capacity: int,
        rows: int = 1,
        encoder: Path | None = None,
        source_capacity: int = 0,
    ) -> None:
        self._decoder = open_session(graph)
        self._encoder = open_session(encoder) if encoder else None
        self.capacity, self.source_capacity = capacity, source_capacity
        self.lengths = np.zeros(rows, np.int32)
        self.sources = np.zeros(rows, np.int32)
        self._caches: dict[str, NDArray[np.floating[Any]]] = {}
        for value in self._decoder.get_inputs():
            if value.name.startswith((_OWN, _CROSS)):
                _, heads, _, size = value.shape
                dtype = np.float16 if value.type == "tensor(float16)" else np.float32
                most = capacity if value.name.startswith(_OWN) else source_capacity
                self._caches[value.name] = np.zeros((rows, heads, most, size), dtype)

    def encode(self, row: int, ids: Ids) -> None:
        """A new source for one row, whose tokens are forgotten."""
        assert self._encoder is not None
        assert 0 < len(ids) <= self.source_capacity
        names = [output.name for output in self._encoder.get_outputs()]
        for name, values in zip(names, self._encoder.run(names, {"input_ids": ids[None]}), strict=True):
            self._caches[name][row, :, : len(ids)] = values[0]
        self.sources[row], self.lengths[row] = len(ids), 0

    def prefill(self, row: int, ids: Ids) -> Floats:
        """Logits [1 or seq, vocab] after appending the ids to one row."""
        logits: Floats = self._run(slice(row, row + 1), ids[None, :])[0]
        return logits

    def decode(self, ids: Ids) -> Floats:
        """Logits [n, vocab] after appending one id to each of the first n rows."""
        logits: Floats = self._run(slice(0, len(ids)), ids[:, None])[:, -1]
        return logits

    def reset(self) -> None:
        self.lengths[:] = 0

    def _run(self, rows: slice, ids: Ids) -> Floats:
        self.lengths[rows] += ids.shape[1]
        assert self.lengths[rows].max() <= self.capacity
        feeds: dict[str, NDArray[Any]] = {"input_ids": np.ascontiguousarray(ids, np.int64)}
        feeds |= _extents("seqlens_k", "total_sequence_length", self.lengths[rows])
        if self._encoder is not None:
            feeds |= _extents("source_seqlens", "source_total", self.sources[rows])
        binding = self._decoder.io_binding()
        for name, array in feeds.items():  # bound by address: `feeds` keeps them alive
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits", "cpu")  # first, so that it is output 0 below
        for name, cache in self._caches.items():
            view = cache[rows]
            place = (cache.dtype.type, view.shape, view.ctypes.data)
            binding.bind_input(name, *_CPU, *place)
            binding.bind_output(f"present_{name.removeprefix(_OWN)}", *_CPU, *place)
        self._decoder.run_with_iobinding(binding)
        logits: Floats = binding.get_outputs()[0].numpy()
        return logits


def _extents(each: str, longest: str, lengths: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    """The inputs that say how long rows are: each length less one, and the longest."""
    return {each: lengths - np.int32(1), longest: np.array(lengths.max(), np.int32)}
