"""Runs the two graphs of an encoder-decoder with their caches bound in place, as the server does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from build.architecture.seq2seq import EncoderDecoder
from build.dialects.inference import open_session
from build.dialects.onnxruntime.session import cache_dtype
from build.quantise import Floats, Ids

_CPU = ("cpu", 0)
_ENCODER, _DECODER = "encoder.onnx", "model.onnx"


class EncoderDecoderSession:
    """`rows` sequences of up to `capacity` tokens over sources of up to `source_capacity`.

    `lengths` and `sources` hold how many each row has.
    """

    def __init__(
        self, folder: Path, model: EncoderDecoder, capacity: int, source_capacity: int, rows: int = 1
    ) -> None:
        self._encoder, self._decoder = (open_session(folder / name) for name in (_ENCODER, _DECODER))
        self._dtype = cache_dtype(self._decoder)
        stack = model.decoder
        names = [f"{kind}_{index}" for index in range(len(stack.layers)) for kind in ("key", "value")]
        own, cross = (
            {name: np.zeros((rows, stack.heads, most, stack.head_dim), self._dtype) for name in names}
            for most in (capacity, source_capacity)
        )
        self.capacity, self.source_capacity = capacity, source_capacity
        self.lengths = np.zeros(rows, np.int32)
        self.sources = np.zeros(rows, np.int32)
        self._own, self._cross = own, cross

    def encode(self, row: int, ids: Ids) -> None:
        """A new source for one row, whose tokens are forgotten."""
        assert 0 < len(ids) <= self.source_capacity
        names = [output.name for output in self._encoder.get_outputs()]
        for name, values in zip(names, self._encoder.run(names, {"input_ids": ids[None]}), strict=True):
            self._cross[name.removeprefix("cross_")][row, :, : len(ids)] = values[0]
        self.sources[row], self.lengths[row] = len(ids), 0

    def decode(self, ids: Ids) -> Floats:
        """Logits [n, vocab] after appending one id to each of the first n rows."""
        rows = slice(0, len(ids))
        self.lengths[rows] += 1
        assert self.lengths[rows].max() <= self.capacity
        binding = self._decoder.io_binding()
        feeds = {
            "input_ids": np.ascontiguousarray(ids[:, None], np.int64),
            **_extents("seqlens_k", "total_sequence_length", self.lengths[rows]),
            **_extents("source_seqlens", "source_total", self.sources[rows]),
        }
        for name, array in feeds.items():  # bound by address: `feeds` keeps them alive
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits", "cpu")  # first, so that it is output 0 below
        for past, present, caches in (
            ("past_", "present_", self._own),
            ("cross_", "present_cross_", self._cross),
        ):
            for name, cache in caches.items():
                view = cache[rows]
                place = (self._dtype, view.shape, view.ctypes.data)
                binding.bind_input(f"{past}{name}", *_CPU, *place)
                binding.bind_output(f"{present}{name}", *_CPU, *place)
        self._decoder.run_with_iobinding(binding)
        logits: Floats = binding.get_outputs()[0].numpy()
        return logits[:, 0]


def _extents(each: str, longest: str, lengths: NDArray[np.int32]) -> dict[str, NDArray[np.int32]]:
    return {each: lengths - np.int32(1), longest: np.array(lengths.max(), np.int32)}
