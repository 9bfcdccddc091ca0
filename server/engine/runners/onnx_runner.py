"""The runner on ONNX Runtime's CPU provider.

`open_session` is the one place where the engine opens ONNX Runtime, and where products of bytes are made
exact.

The graph (dialect `onnxruntime`) updates its KV cache in place: one buffer a layer for keys and one for
values, of shape (slots, kv_heads, capacity, head_dim), bound by address as both past and present. A decode
step binds the first n rows, a prefill one row. Bindings are made once for each n and each slot, and every
step only writes the small inputs that they point to.

With an encoder there is such a cache for the sources too: the encoder's graph computes its keys and values,
once per request, and the decoder's graph reads them in place, with a length for each row.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engine.core.errors import ArtifactError
from engine.edge.artifact import ModelShape
from engine.runners.runner import Floats

Provider = str | tuple[str, Mapping[str, str]]
CPU: Final = "CPUExecutionProvider"
# An ONNX file of one node, y INT32 [m, n] = MatMulInteger(x UINT8 [m, k], w INT8 [k, n]): the engine has no
# package that could write it.
_PRODUCT: Final = bytes.fromhex(
    "08083a620a180a01780a0177120179220d4d61744d756c496e74656765721201705a150a017812100a0e0802120a0a03"
    "12016d0a0312016b5a150a017712100a0e0803120a0a0312016b0a0312016e62150a017912100a0e0806120a0a031201"
    "6d0a0312016e42040a00100d"
)


def open_session(path: Path, threads: int = 0, provider: Provider = CPU) -> ort.InferenceSession:
    """`threads` 0 is one for each core. Raises ArtifactError when ONNX Runtime cannot load the graph."""
    options = _options(threads)
    if not sums_are_exact():
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # ONNX Runtime raises many types for a bad file
        raise ArtifactError(path.name, f"ONNX Runtime cannot load it: {error}") from error


@functools.cache
def sums_are_exact() -> bool:
    """Whether this processor sums products of unsigned by signed bytes in 32 bits without being asked to.

    An x86 processor without VNNI sums pairs in 16 bits, which saturate. A product of the largest numbers
    shows it. A list of processors would lack the next one, and /proc/cpuinfo may describe another machine's.
    """
    session = ort.InferenceSession(_PRODUCT, _options(1), providers=[CPU])
    inputs, weights = np.full((4, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    sums = [session.run(None, {"x": inputs[:rows], "w": weights})[0] for rows in (1, len(inputs))]
    return all(bool((found == 64 * 255 * 127).all()) for found in sums)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Shapes change with every prompt, so a plan of the last shapes only holds memory.
    options.enable_mem_pattern = False
    return options


Caches = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Bound:
    """A binding with the inputs it reads and the output it writes."""

    binding: Any
    ids: NDArray[np.int64]
    lengths: NDArray[np.int32]
    total: NDArray[np.int32]
    sources: NDArray[np.int32]
    source_total: NDArray[np.int32]
    logits: Floats


class OnnxRunner:
    """`encoder`, and `source_capacity` above 0, for an encoder-decoder."""

    def __init__(
        self,
        session: ort.InferenceSession,
        shape: ModelShape,
        slots: int,
        capacity: int,
        chunk: int,
        encoder: ort.InferenceSession | None = None,
        source_capacity: int = 0,
    ) -> None:
        self._session = session
        self._encoder = encoder
        self._shape = shape
        self._chunk = chunk
        self._caches = _caches(shape, slots, capacity)
        self._cross = _caches(shape, slots, source_capacity) if encoder else {}
        # The last position of each row's source, as the graph wants it.
        self._sources = np.zeros(slots, np.int32)
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
        assert self._encoder
        names = [f"cross_{name}" for name in self._cross]
        outputs = self._encoder.run(names, {"input_ids": np.array([tokens], np.int64)})
        for cache, output in zip(self._cross.values(), outputs, strict=True):
            cache[slot, :, : len(tokens)] = output[0]
        self._sources[slot] = len(tokens) - 1

    def copy(self, source: int, target: int, tokens: int, *, start: int = 0, cross: bool = True) -> None:
        _copy(self._caches, source, target, slice(start, tokens))
        if cross and self._cross:
            _copy(self._cross, source, target, slice(0, self._sources[source] + 1))
            self._sources[target] = self._sources[source]

    def swap(self, a: int, b: int, tokens: int) -> None:
        _swap(self._caches, a, b, tokens)
        _swap(self._cross, a, b, int(self._sources[[a, b]].max()) + 1)
        self._sources[[a, b]] = self._sources[[b, a]]

    def _prefill_binding(self, slot: int, length: int) -> _Bound:
        row = slice(slot, slot + 1)
        if length != self._chunk:  # the odd rest of a prompt: a binding for every length would pile up
            return self._bind(row, length)
        if slot not in self._prefills:
            self._prefills[slot] = self._bind(row, length)
        return self._prefills[slot]

    def _run(self, bound: _Bound, tokens: Sequence[int], last: Sequence[int]) -> Floats:
        bound.ids[:] = np.reshape(tokens, bound.ids.shape)
        bound.lengths[:] = last
        bound.total[...] = max(last) + 1
        if self._cross:
            bound.source_total[...] = bound.sources.max() + 1
        self._session.run_with_iobinding(bound.binding)
        return bound.logits

    def _bind(self, rows: slice, length: int) -> _Bound:
        count = rows.stop - rows.start
        ids = np.zeros((count, length), np.int64)
        lengths = np.zeros(count, np.int32)
        total, source_total = np.zeros((), np.int32), np.zeros((), np.int32)
        sources = self._sources[rows]
        logits = np.zeros((count, self._shape.vocab_size), np.float32)
        binding = self._session.io_binding()
        small: dict[str, NDArray[Any]] = {
            "input_ids": ids, "seqlens_k": lengths, "total_sequence_length": total,
        }  # fmt: skip
        if self._cross:
            small |= {"source_seqlens": sources, "source_total": source_total}
        for name, array in small.items():
            _bind_array(binding.bind_input, name, array, array.shape)
        _bind_caches(binding, self._caches, rows, "past_", "present_")
        _bind_caches(binding, self._cross, rows, "cross_", "present_cross_")
        _bind_array(binding.bind_output, "logits", logits, (count, 1, self._shape.vocab_size))
        return _Bound(binding, ids, lengths, total, sources, source_total, logits)


def _caches(shape: ModelShape, slots: int, capacity: int) -> Caches:
    # np.zeros maps pages that cost no memory before they are written: an unused slot is free.
    size = (slots, shape.kv_heads, capacity, shape.head_dim)
    names = (f"{kind}_{layer}" for layer in range(shape.layers) for kind in ("key", "value"))
    return {name: np.zeros(size, np.float32) for name in names}


def _copy(caches: Caches, source: int, target: int, positions: slice) -> None:
    for cache in caches.values():
        cache[target, :, positions] = cache[source, :, positions]


def _swap(caches: Caches, a: int, b: int, tokens: int) -> None:
    for cache in caches.values():
        kept = cache[a, :, :tokens].copy()
        cache[a, :, :tokens] = cache[b, :, :tokens]
        cache[b, :, :tokens] = kept


def _bind_caches(binding: Any, caches: Caches, rows: slice, past: str, present: str) -> None:
    for name, cache in caches.items():
        part = cache[rows]
        _bind_array(binding.bind_input, f"{past}{name}", part, part.shape)
        _bind_array(binding.bind_output, f"{present}{name}", part, part.shape)


def _bind_array(bind: Any, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    bind(name, "cpu", 0, array.dtype.type, shape, array.ctypes.data)
