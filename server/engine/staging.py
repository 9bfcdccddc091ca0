"""The small inputs of a step: written on the host, one after the other, and copied to the device together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.memory import DeviceMemory, aligned

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
