"""Experimental, not run on a GPU yet: a GPU's memory, through NVIDIA's Python bindings of the CUDA runtime.

All copies go through one stream, on which ONNX Runtime or TensorRT also runs its kernels: this keeps them in
order. CUDA selects a device per thread, and the engine has several threads; so every call selects it.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
from cuda.bindings import runtime
from numpy.typing import NDArray

from engine.core.errors import InternalError
from engine.runners.memory import Bytes

_WITHIN: Final = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
_TO_DEVICE: Final = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
_TO_HOST: Final = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
_NON_BLOCKING: Final = 1


def checked(answer: tuple[Any, ...]) -> Any:
    """What a call of the CUDA runtime returned after its status; raises InternalError for a failure."""
    status, *values = answer
    if status != runtime.cudaError_t.cudaSuccess:
        raise InternalError("cuda", f"{status.name}, {_explained(status)}")
    return values[0] if len(values) == 1 else tuple(values)


class CudaMemory:
    """Memory of GPU `device`, as CUDA counts them. `stream` is the handle of the stream that everything runs
    on.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self.select()
        self.stream = int(checked(runtime.cudaStreamCreateWithFlags(_NON_BLOCKING)))

    @property
    def place(self) -> tuple[str, int]:
        return "cuda", self._device

    @property
    def free_bytes(self) -> int:
        self.select()
        free, _ = checked(runtime.cudaMemGetInfo())
        return int(free)

    @property
    def compute_capability(self) -> str:
        """As in "9.0"."""
        asked = runtime.cudaDeviceAttr
        both = (asked.cudaDevAttrComputeCapabilityMajor, asked.cudaDevAttrComputeCapabilityMinor)
        return ".".join(str(checked(runtime.cudaDeviceGetAttribute(each, self._device))) for each in both)

    def allocate(self, size: int) -> int:
        """cudaMalloc aligns to 256 bytes at least."""
        self.select()
        address = int(checked(runtime.cudaMalloc(size)))
        checked(runtime.cudaMemsetAsync(address, 0, size, self.stream))
        return address

    def allocate_host(self, size: int) -> Bytes:
        self.select()
        address = int(checked(runtime.cudaMallocHost(size)))
        array: Bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        array[:] = 0
        return array

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int
    ) -> None:
        self.select()
        copied = (target, target_pitch, source, source_pitch, width, rows)
        checked(runtime.cudaMemcpy2DAsync(*copied, _WITHIN, self.stream))

    def from_host(self, address: int, array: NDArray[Any]) -> None:
        self.select()
        copied = (address, array.ctypes.data, array.nbytes)
        checked(runtime.cudaMemcpyAsync(*copied, _TO_DEVICE, self.stream))

    def to_host(self, array: NDArray[Any], address: int) -> None:
        self.select()
        copied = (array.ctypes.data, address, array.nbytes)
        checked(runtime.cudaMemcpyAsync(*copied, _TO_HOST, self.stream))
        self.synchronize()

    def synchronize(self) -> None:
        self.select()
        checked(runtime.cudaStreamSynchronize(self.stream))

    def select(self) -> None:
        """Make it the GPU of the calling thread."""
        checked(runtime.cudaSetDevice(self._device))


def _explained(status: Any) -> str:
    _, text = runtime.cudaGetErrorString(status)
    return str(text.decode()) if isinstance(text, bytes) else str(text)
