"""Memory of a device, by address: it holds a runner's KV cache and its small inputs.

ONNX Runtime and TensorRT both take addresses. So a runner that asks for its memory here runs on a GPU over
`CudaMemory`, and the very same runner on a CPU over `HostMemory`, which is how it is tested without a GPU.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

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
