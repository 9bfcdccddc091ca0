"""Experimental, not run on a GPU yet: the runner for graphs of the dialect `tensorrt` (docs/gpu.md).

TensorRT has no attention with lengths: in every step the runner passes where each row's tokens go, their
positions, and masks of the keys that they may attend to, as bool (rows, 1, queries, keys), true where a query
may look; no row of a mask is ever all false. A decode step of n rows is prepared once, and its tensors never
move, so that it can be replayed as one CUDA graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.edge.artifact import ModelShape
from engine.runners.memory import (
    ALIGNMENT,
    DeviceMemory,
    KvCache,
    Layout,
    SlotCache,
    Staged,
    Staging,
    staged_bytes,
)
from engine.runners.runner import Executor, Floats, Place, Profile, Step

Mask = NDArray[np.bool_]


def fill_causal(mask: Mask, positions: NDArray[np.int64], window: int | None = None) -> None:
    """Keys up to the query's own position, with a window only the last `window` of them.

    `positions` are those of the queries, (rows, queries); `mask` is written in place.
    """
    keys = np.arange(mask.shape[-1])
    queries = positions[:, None, :, None]
    np.less_equal(keys, queries, out=mask)
    if window is not None:
        mask &= keys > queries - window


def fill_source(mask: Mask, lengths: NDArray[np.int32]) -> None:
    """The keys that each row's source has; of a row without one, the first."""
    np.less(np.arange(mask.shape[-1]), np.maximum(lengths, 1)[:, None, None, None], out=mask)


_CAUSAL: Final = re.compile(r"attention_mask(?:_(\d+))?")
_POSITIONS: Final = "position_ids"
_INDICES: Final = "write_indices"
_SOURCE_MASK: Final = "source_mask"


@dataclass(frozen=True, slots=True)
class _Prepared:
    """`logits` is on the host, (rows, vocab)."""

    step: Step
    rows: slice
    inputs: Staged
    logits: Floats


class TensorRtRunner:
    """`capacity` and `source_capacity` are the graph's; `encoder` is None for a decoder-only model."""

    def __init__(
        self,
        decoder: Executor,
        encoder: Executor | None,
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
        self._cache = SlotCache(memory, shape, slots, capacity, source_capacity)
        assert not self._cache.own.shape.row_bytes % ALIGNMENT, "every row of the cache is bound by address"
        self._masks = [name for name in sorted(decoder.inputs) if _CAUSAL.fullmatch(name)]
        layouts = self._layout(slots, 1), self._layout(1, chunk), self._source_layout(source_capacity)
        self._staging = Staging(memory, max(map(staged_bytes, layouts)))
        self._logits = memory.allocate_host(slots * shape.vocab_size * 4).view(np.float32)
        self._logits_address = memory.allocate(self._logits.nbytes)
        self._decodes: dict[int, _Prepared] = {}

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        rows = len(tokens)
        if rows not in self._decodes:
            self._decodes[rows] = self._prepare(Profile.DECODE, slice(0, rows), 1)
        return self._run(self._decodes[rows], np.reshape(tokens, (-1, 1)), np.reshape(positions, (-1, 1)))

    def prefill(self, slot: int, start: int, tokens: Sequence[int]) -> Floats:
        prepared = self._prepare(Profile.PREFILL, slice(slot, slot + 1), len(tokens))
        positions = np.arange(start, start + len(tokens))
        return self._run(prepared, np.reshape(tokens, (1, -1)), positions[None])

    def encode(self, slot: int, tokens: Sequence[int]) -> None:
        assert self._encoder is not None
        count = len(tokens)
        layout = self._source_layout(count)
        inputs = self._staging.lay(layout)
        inputs.arrays["input_ids"][:] = tokens
        if "attention_mask" in inputs.arrays:
            inputs.arrays["attention_mask"][:] = True
        inputs.send()
        places = dict(_places(inputs, layout))
        size = (1, self._shape.kv_heads, count, self._shape.head_dim)
        places |= {f"cross_{name}": Place(address, size) for name, address in self._cache.encoded.items()}
        self._encoder.prepare(Profile.DECODE, places, repeated=False).run()
        self._cache.take_encoded(slot, count)

    def copy(self, source: int, target: int, tokens: int, *, start: int = 0, cross: bool = True) -> None:
        self._cache.copy(source, target, start, tokens, cross=cross)

    def swap(self, a: int, b: int, tokens: int) -> None:
        self._cache.swap(a, b, tokens)

    def _run(self, prepared: _Prepared, tokens: NDArray[Any], positions: NDArray[Any]) -> Floats:
        arrays = prepared.inputs.arrays
        arrays["input_ids"][:] = tokens
        arrays[_INDICES][:] = positions[:, 0]
        if _POSITIONS in arrays:
            arrays[_POSITIONS][:] = positions
        for name in self._masks:
            fill_causal(arrays[name], positions, _window(name))
        if self._cache.cross:
            fill_source(arrays[_SOURCE_MASK], self._cache.sources[prepared.rows])
        prepared.inputs.send()
        prepared.step.run()
        self._memory.to_host(prepared.logits, self._logits_address)
        return prepared.logits

    def _layout(self, rows: int, length: int) -> Layout:
        """The possible inputs that this graph actually has."""
        layout: dict[str, Any] = {
            "input_ids": (np.int64, (rows, length)),
            _POSITIONS: (np.int64, (rows, length)),
            _INDICES: (np.int64, (rows,)),
        }
        layout |= dict.fromkeys(self._masks, (np.bool_, (rows, 1, length, self._cache.own.shape.capacity)))
        if self._cache.cross:
            layout[_SOURCE_MASK] = (np.bool_, (rows, 1, length, self._cache.cross.shape.capacity))
        return {name: kind for name, kind in layout.items() if name in self._decoder.inputs}

    def _source_layout(self, tokens: int) -> Layout:
        inputs = self._encoder.inputs if self._encoder else frozenset[str]()
        layout: dict[str, Any] = {
            "input_ids": (np.int64, (1, tokens)),
            "attention_mask": (np.bool_, (1, 1, tokens, tokens)),
        }
        return {name: kind for name, kind in layout.items() if name in inputs}

    def _prepare(self, profile: Profile, rows: slice, length: int) -> _Prepared:
        count, vocab = rows.stop - rows.start, self._shape.vocab_size
        layout = self._layout(count, length)
        inputs = self._staging.lay(layout)
        places = dict(_places(inputs, layout))
        places["logits"] = Place(self._logits_address, (count, 1, vocab))
        places |= dict(_cache_places(self._cache.own, rows, "past_", "present_"))
        if self._cache.cross:
            places |= dict(_cache_places(self._cache.cross, rows, "cross_"))
        step = self._decoder.prepare(profile, places, repeated=profile is Profile.DECODE)
        return _Prepared(step, rows, inputs, self._logits[: count * vocab].reshape(count, vocab))


def _window(mask: str) -> int | None:
    found = _CAUSAL.fullmatch(mask)
    assert found
    return int(found[1]) if found[1] else None


def _places(inputs: Staged, layout: Layout) -> Iterator[tuple[str, Place]]:
    return ((name, Place(inputs.addresses[name], shape)) for name, (_, shape) in layout.items())


def _cache_places(cache: KvCache, rows: slice, *prefixes: str) -> Iterator[tuple[str, Place]]:
    shape = cache.shape.rows(rows.stop - rows.start)
    for name, address in cache.addresses(rows.start):
        yield from ((f"{prefix}{name}", Place(address, shape)) for prefix in prefixes)
