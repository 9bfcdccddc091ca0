"""Experimental, never run on a GPU: a GPU's memory, for verifying a plan.

`runtime` is the module `cuda.bindings.runtime`.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from build.errors import BuildError


class Cuda:
    """All calls are in the order of one stream; what is allocated lives until `close`."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._kinds = runtime.cudaMemcpyKind
        self._addresses: list[int] = []
        self.stream = int(self._checked(runtime.cudaStreamCreate()))

    def allocate(self, size: int) -> int:
        """The address, a multiple of 256, of so many zeroed bytes."""
        address = int(self._checked(self._runtime.cudaMalloc(size)))
        self._addresses.append(address)
        self._checked(self._runtime.cudaMemsetAsync(address, 0, size, self.stream))
        return address

    def write(self, address: int, array: NDArray[Any]) -> None:
        """Copies a contiguous array, which may be freed once this returns."""
        kind = self._kinds.cudaMemcpyHostToDevice
        self._copy(address, array.ctypes.data, array.nbytes, kind)

    def read(self, array: NDArray[Any], address: int) -> None:
        self._copy(array.ctypes.data, address, array.nbytes, self._kinds.cudaMemcpyDeviceToHost)

    def copy_rows(self, target: int, target_pitch: int, source: int, width: int, rows: int) -> None:
        """Copies `rows` of `width` bytes, adjacent at `source`, to places `target_pitch` bytes apart."""
        kind = self._kinds.cudaMemcpyDeviceToDevice
        copied = (target, target_pitch, source, width, width, rows, kind, self.stream)
        self._checked(self._runtime.cudaMemcpy2DAsync(*copied))

    def synchronise(self) -> None:
        self._checked(self._runtime.cudaStreamSynchronize(self.stream))

    def close(self) -> None:
        self.synchronise()
        for address in self._addresses:
            self._checked(self._runtime.cudaFree(address))
        self._addresses.clear()

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        self._checked(self._runtime.cudaMemcpyAsync(target, source, size, kind, self.stream))
        self.synchronise()

    def _checked(self, answer: tuple[Any, ...]) -> Any:
        status, *values = answer
        if status != self._runtime.cudaError_t.cudaSuccess:
            raise BuildError(f"cuda: {status.name}: is the GPU out of memory, or in use by another?")
        return values[0] if values else None
