"""Experimental, not run on a GPU yet: the runner on ONNX Runtime's CUDA provider, with all large data in the
device's memory.

The graph and its in-place KV cache are those of `onnx_runner`; here the cache, the inputs and the logits are
addresses in a `DeviceMemory`. A binding copies an input from another device when it is created, not when it
runs; so the inputs are bound where the graph reads them, and each step copies them there itself. The two
totals are the exception: ONNX Runtime's attention reads them on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engine.edge.artifact import KvDtype, ModelShape
from engine.runners.memory import DeviceMemory, KvCache, Layout, SlotCache, Staged, Staging, staged_bytes
from engine.runners.runner import Floats

# numpy has no bfloat16: ONNX's own number of the type.
KV_TYPES: Final[dict[KvDtype, Any]] = {
    KvDtype.FLOAT32: np.float32,
    KvDtype.FLOAT16: np.float16,
    KvDtype.BFLOAT16: 16,
}
_HOST: Final = ("cpu", 0)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A binding for some rows, with the inputs it reads and the output it writes."""

    binding: Any
    rows: slice
    inputs: Staged
    total: NDArray[np.int32]
    source_total: NDArray[np.int32]
    logits: Floats


class CudaRunner:
    """`encoder`, and `source_capacity` above 0, for an encoder-decoder."""

    def __init__(
        self,
        decoder: ort.InferenceSession,
        encoder: ort.InferenceSession | None,
        shape: ModelShape,
        memory: DeviceMemory,
        slots: int,
        capacity: int,
        chunk: int,
        source_capacity: int = 0,
    ) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._shape = shape
        self._memory = memory
        self._chunk = chunk
        self._cache = SlotCache(memory, shape, slots, capacity, source_capacity)
        layouts = self._layout(slots, 1), self._layout(1, chunk), _source_layout(source_capacity)
        self._staging = Staging(memory, max(map(staged_bytes, layouts)))
        self._logits = memory.allocate_host(slots * shape.vocab_size * 4).view(np.float32)
        self._logits_address = memory.allocate(self._logits.nbytes)
        self._decodes: dict[int, _Bound] = {}
        self._prefills: dict[int, _Bound] = {}

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        rows = len(tokens)
        if rows not in self._decodes:
            self._decodes[rows] = self._bind(slice(0, rows), 1)
        return self._run(self._decodes[rows], tokens, positions)

    def prefill(self, slot: int, start: int, tokens: Sequence[int]) -> Floats:
        return self._run(self._prefill_binding(slot, len(tokens)), tokens, [start + len(tokens) - 1])

    def encode(self, slot: int, tokens: Sequence[int]) -> None:
        assert self._encoder is not None
        count = len(tokens)
        inputs = self._staging.lay(_source_layout(count))
        inputs.arrays["input_ids"][:] = tokens
        inputs.send()
        binding = self._encoder.io_binding()
        place, kind = self._memory.place, KV_TYPES[self._shape.kv_dtype]
        binding.bind_input("input_ids", *place, np.int64, (1, count), inputs.addresses["input_ids"])
        size = (1, self._shape.kv_heads, count, self._shape.head_dim)
        for name, address in self._cache.encoded.items():
            binding.bind_output(f"cross_{name}", *place, kind, size, address)
        self._encoder.run_with_iobinding(binding)
        self._cache.take_encoded(slot, count)

    def copy(self, source: int, target: int, tokens: int, *, start: int = 0, cross: bool = True) -> None:
        self._cache.copy(source, target, start, tokens, cross=cross)

    def swap(self, a: int, b: int, tokens: int) -> None:
        self._cache.swap(a, b, tokens)

    def _layout(self, rows: int, length: int) -> Layout:
        layout: dict[str, Any] = {"input_ids": (np.int64, (rows, length)), "seqlens_k": (np.int32, (rows,))}
        return layout | ({"source_seqlens": (np.int32, (rows,))} if self._cache.cross else {})

    def _prefill_binding(self, slot: int, length: int) -> _Bound:
        row = slice(slot, slot + 1)
        if length != self._chunk:  # the odd rest of a prompt: a binding for every length would pile up
            return self._bind(row, length)
        if slot not in self._prefills:
            self._prefills[slot] = self._bind(row, length)
        return self._prefills[slot]

    def _run(self, bound: _Bound, tokens: Sequence[int], last: Sequence[int]) -> Floats:
        arrays = bound.inputs.arrays
        arrays["input_ids"][:] = np.reshape(tokens, arrays["input_ids"].shape)
        arrays["seqlens_k"][:] = last
        bound.total[...] = max(last) + 1
        if self._cache.cross:
            # An idle row may have no source yet; it reads one position of whatever the cache contains.
            lengths = np.maximum(self._cache.sources[bound.rows], 1)
            arrays["source_seqlens"][:] = lengths - 1
            bound.source_total[...] = lengths.max()
        bound.inputs.send()
        self._decoder.run_with_iobinding(bound.binding)
        self._memory.to_host(bound.logits, self._logits_address)
        return bound.logits

    def _bind(self, rows: slice, length: int) -> _Bound:
        count, vocab = rows.stop - rows.start, self._shape.vocab_size
        layout = self._layout(count, length)
        inputs = self._staging.lay(layout)
        total, source_total = np.zeros((), np.int32), np.zeros((), np.int32)
        logits = self._logits[: count * vocab].reshape(count, vocab)
        binding, place = self._decoder.io_binding(), self._memory.place
        for name, (kind, shape) in layout.items():
            binding.bind_input(name, *place, kind, shape, inputs.addresses[name])
        totals = {"total_sequence_length": total} | (
            {"source_total": source_total} if self._cache.cross else {}
        )
        for name, array in totals.items():
            binding.bind_input(name, *_HOST, np.int32, (), array.ctypes.data)
        self._bind_cache(binding, self._cache.own, rows, "past_", "present_")
        if self._cache.cross:
            self._bind_cache(binding, self._cache.cross, rows, "cross_", "present_cross_")
        binding.bind_output("logits", *place, logits.dtype, (count, 1, vocab), self._logits_address)
        return _Bound(binding, rows, inputs, total, source_total, logits)

    def _bind_cache(self, binding: Any, cache: KvCache, rows: slice, past: str, present: str) -> None:
        kind, shape = KV_TYPES[self._shape.kv_dtype], cache.shape.rows(rows.stop - rows.start)
        for name, address in cache.addresses(rows.start):
            for bind, prefix in ((binding.bind_input, past), (binding.bind_output, present)):
                bind(f"{prefix}{name}", *self._memory.place, kind, shape, address)


def _source_layout(tokens: int) -> Layout:
    return {"input_ids": (np.int64, (1, tokens))}
