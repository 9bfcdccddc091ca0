"""A KV cache in a device's memory: buffers of shape (slots, heads, capacity, head_dim), moved by address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.manifest import ModelShape
from engine.memory import DeviceMemory, aligned


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The shape of one buffer; `item_size` is in bytes."""

    slots: int
    heads: int
    capacity: int
    head_dim: int
    item_size: int

    @property
    def token_bytes(self) -> int:
        """Bytes of one position of one head."""
        return self.head_dim * self.item_size

    @property
    def head_bytes(self) -> int:
        return self.capacity * self.token_bytes

    @property
    def row_bytes(self) -> int:
        return self.heads * self.head_bytes

    def rows(self, count: int) -> tuple[int, int, int, int]:
        """The shape of so many rows as a tensor."""
        return count, self.heads, self.capacity, self.head_dim


class KvCache:
    """One buffer for each of `names`; a row of all of them is a slot."""

    def __init__(self, memory: DeviceMemory, names: Sequence[str], shape: CacheShape) -> None:
        self.shape = shape
        self.names = tuple(names)
        self._memory = memory
        self._buffers = {name: memory.allocate(shape.slots * shape.row_bytes) for name in names}
        # Holds a row during a swap, or the output of an encoder.
        self._spare = memory.allocate(aligned(shape.row_bytes))

    def address(self, name: str, row: int = 0) -> int:
        return self._buffers[name] + row * self.shape.row_bytes

    def addresses(self, row: int) -> Iterator[tuple[str, int]]:
        return ((name, self.address(name, row)) for name in self.names)

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy the positions start to end (excluded) of a row to another row."""
        if start < end:
            for name in self.names:
                self._copy(self.address(name, target), self.address(name, source), start, end)

    def swap(self, a: int, b: int, tokens: int) -> None:
        """Exchange the first positions of two rows."""
        if not tokens or a == b:
            return
        for name in self.names:
            places = self.address(name, a), self.address(name, b)
            self._copy(self._spare, places[0], 0, tokens)
            self._copy(places[0], places[1], 0, tokens)
            self._copy(places[1], self._spare, 0, tokens)

    def fill(self, name: str, row: int, packed: int, tokens: int) -> None:
        """Fill the first positions of a row from an address that holds (heads, tokens, head_dim), packed."""
        width = tokens * self.shape.token_bytes
        target = self.address(name, row)
        self._memory.copy_rows(target, self.shape.head_bytes, packed, width, width, self.shape.heads)

    def _copy(self, target: int, source: int, start: int, end: int) -> None:
        skipped, width = start * self.shape.token_bytes, (end - start) * self.shape.token_bytes
        pitch = self.shape.head_bytes
        self._memory.copy_rows(target + skipped, pitch, source + skipped, pitch, width, self.shape.heads)


class SlotCache:
    """What a slot keeps on the device: its own keys and values, and with an encoder those of its source.

    `sources` counts the source tokens of each slot, 0 before there is one.
    """

    def __init__(
        self, memory: DeviceMemory, model: ModelShape, slots: int, capacity: int, source_capacity: int
    ) -> None:
        self._memory = memory
        names = [f"{kind}_{layer}" for layer in range(model.layers) for kind in ("key", "value")]
        shape = CacheShape(slots, model.kv_heads, capacity, model.head_dim, model.kv_dtype.size)
        self.own = KvCache(memory, names, shape)
        self.cross: KvCache | None = None
        self.sources = np.zeros(slots, np.int32)
        self.encoded: dict[str, int] = {}
        if model.has_encoder:
            shape = CacheShape(slots, model.kv_heads, source_capacity, model.head_dim, model.kv_dtype.size)
            self.cross = KvCache(memory, names, shape)
            # The encoder's output is packed, (1, heads, tokens, head_dim); a row of the cache is not.
            self.encoded = {name: memory.allocate(shape.row_bytes) for name in names}

    def copy(self, source: int, target: int, start: int, end: int, *, cross: bool) -> None:
        self.own.copy(source, target, start, end)
        if self.cross and cross:
            self.cross.copy(source, target, 0, int(self.sources[source]))
            self.sources[target] = self.sources[source]

    def swap(self, a: int, b: int, tokens: int) -> None:
        self.own.swap(a, b, tokens)
        if self.cross:
            self.cross.swap(a, b, int(self.sources[[a, b]].max()))
            self.sources[[a, b]] = self.sources[[b, a]]

    def take_encoded(self, slot: int, tokens: int) -> None:
        """Make what an encoder wrote to `encoded` the slot's source."""
        assert self.cross is not None
        for name, address in self.encoded.items():
            self.cross.fill(name, slot, address, tokens)
        self.sources[slot] = tokens
        self._memory.synchronize()
