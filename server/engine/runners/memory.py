"""Memory of a device, by address: KV caches of shape (slots, heads, capacity, head_dim) and small inputs.

ONNX Runtime and TensorRT both take addresses. So a runner that asks for its memory here runs on a GPU over
`CudaMemory`, and the very same runner on a CPU over `HostMemory`, which is how it is tested without a GPU.
The small inputs of a step are written on the host, one after the other, and copied to the device together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.edge.artifact import ModelShape

# TensorRT wants every tensor at a multiple of this.
ALIGNMENT: Final = 256

Bytes = NDArray[np.uint8]


class DeviceMemory(Protocol):
    """An allocation lives as long as this object. Copies and kernels run in the order of the calls."""

    @property
    def place(self) -> tuple[str, int]:
        """As ONNX Runtime names it: ("cpu", 0), ("cuda", 1)."""

    def allocate(self, size: int) -> int:
        """The address of `size` bytes of zeros, a multiple of ALIGNMENT."""

    def allocate_host(self, size: int) -> Bytes:
        """Zeros of the host that copy to and from the device fast."""

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int
    ) -> None:
        """Copy `rows` times `width` bytes within the device, each so many bytes (a pitch) after the last.

        The two may not overlap.
        """

    def from_host(self, address: int, array: NDArray[Any]) -> None:
        """Copy to the device; the array must not change until `to_host` or `synchronize` returns."""

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Copy to the host, after all earlier calls have finished; returns when the copy is done."""

    def synchronize(self) -> None:
        """Wait until all earlier calls have finished."""


def aligned(size: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class HostMemory:
    """The host's own memory as a device. An access beyond what was allocated is an error here."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._blocks: list[Bytes] = []

    @property
    def place(self) -> tuple[str, int]:
        return "cpu", 0

    def allocate(self, size: int) -> int:
        # np.zeros maps pages that cost no memory before they are written: an unused slot is free.
        whole = np.zeros(size + ALIGNMENT, np.uint8)
        skipped = -whole.ctypes.data % ALIGNMENT
        block = whole[skipped : skipped + size]
        start = int(block.ctypes.data)
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._blocks.insert(at, block)
        return start

    def allocate_host(self, size: int) -> Bytes:
        return np.zeros(size, np.uint8)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int
    ) -> None:
        self._rows(target, target_pitch, width, rows)[:] = self._rows(source, source_pitch, width, rows)

    def from_host(self, address: int, array: NDArray[Any]) -> None:
        self._bytes(address, array.nbytes)[:] = array.reshape(-1).view(np.uint8)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        array.reshape(-1).view(np.uint8)[:] = self._bytes(address, array.nbytes)

    def synchronize(self) -> None:
        pass

    def _rows(self, address: int, pitch: int, width: int, rows: int) -> Bytes:
        assert width <= pitch, (width, pitch)
        found = self._bytes(address, pitch * (rows - 1) + width)
        return np.lib.stride_tricks.as_strided(found, (rows, width), (pitch, 1))

    def _bytes(self, address: int, size: int) -> Bytes:
        at = bisect_right(self._starts, address) - 1
        assert at >= 0, "an address that was not allocated"
        offset = address - self._starts[at]
        assert offset + size <= self._blocks[at].nbytes, (offset, size, self._blocks[at].nbytes)
        return self._blocks[at][offset : offset + size]


Layout = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Staged:
    """Inputs of one layout: write to `arrays`, then `send`; the device has them at `addresses`."""

    arrays: Mapping[str, NDArray[Any]]
    addresses: Mapping[str, int]
    _block: NDArray[np.uint8]
    _address: int
    _memory: DeviceMemory

    def send(self) -> None:
        self._memory.from_host(self._address, self._block)


class Staging:
    """A block on the host and one on the device, used by one step at a time, in any layout."""

    def __init__(self, memory: DeviceMemory, size: int) -> None:
        self._memory = memory
        self._host = memory.allocate_host(size)
        self._device = memory.allocate(size)

    def lay(self, layout: Layout) -> Staged:
        """The same layout always has the same addresses."""
        end = staged_bytes(layout)
        assert end <= self._host.nbytes, (end, self._host.nbytes)
        arrays, addresses = {}, {}
        for name, start, size, dtype, shape in _places(layout):
            arrays[name] = self._host[start : start + size].view(dtype).reshape(shape)
            addresses[name] = self._device + start
        return Staged(arrays, addresses, self._host[:end], self._device, self._memory)


def staged_bytes(layout: Layout) -> int:
    """Bytes that `lay` needs for a layout."""
    return max((start + size for _, start, size, _, _ in _places(layout)), default=0)


def _places(layout: Layout) -> Iterator[tuple[str, int, int, np.dtype[Any], tuple[int, ...]]]:
    start = 0
    for name, (kind, shape) in layout.items():
        dtype = np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape))
        yield name, start, size, dtype, shape
        start = aligned(start + size)


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
