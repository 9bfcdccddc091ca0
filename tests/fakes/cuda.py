# ruff: noqa: N815  the names are those of CUDA
"""The part of cuda.bindings.runtime that the server uses, over the host's memory.

It does what CUDA's documentation says of each call, at once instead of in the order of a stream, and checks
that a call comes from a thread that has chosen its device.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import types
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import pytest


class Status(IntEnum):
    """cudaError_t"""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101


class FakeCuda(SimpleNamespace):
    """Stands in for the module; `calls` lists the calls that concern streams and graphs."""

    cudaError_t = Status
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
    )

    def __init__(
        self,
        gpus: int = 2,
        status: Status = Status.cudaSuccess,
        driver: int = 13000,
        memory_bytes: int = 1 << 24,
    ) -> None:
        super().__init__(calls=[])
        self.gpus = gpus
        self.status = status
        self.driver = driver
        self.free = memory_bytes
        self.total = memory_bytes
        self._blocks: list[Any] = []
        self._chosen = threading.local()

    def cudaGetDeviceCount(self) -> tuple[Status, int]:
        return self.status, self.gpus

    def cudaDriverGetVersion(self) -> tuple[Status, int]:
        return Status.cudaSuccess, self.driver

    def cudaRuntimeGetVersion(self) -> tuple[Status, int]:
        return Status.cudaSuccess, 13040

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:
        return Status.cudaSuccess, status.name.encode()

    def cudaSetDevice(self, device: int) -> tuple[Status]:
        self._chosen.device = device
        return (Status.cudaSuccess if device < self.gpus else Status.cudaErrorInvalidDevice,)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Status, int]:
        return Status.cudaSuccess, {75: 9, 76: 0}[attribute]

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int]:
        return Status.cudaSuccess, 77

    def cudaMemGetInfo(self) -> tuple[Status, int, int]:
        return Status.cudaSuccess, self.free, self.total

    def cudaMalloc(self, size: int) -> tuple[Status, int | None]:
        self._check_device()
        if size > self.free:
            return Status.cudaErrorMemoryAllocation, None
        self.free -= size
        return Status.cudaSuccess, self._block(size)

    def cudaMallocHost(self, size: int) -> tuple[Status, int]:
        return Status.cudaSuccess, self._block(size)

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[Status]:
        ctypes.memset(address, value, size)
        return self._done("memset", stream)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[Status]:
        assert kind in {1, 2}
        ctypes.memmove(target, source, size)
        return self._done("copy", stream)

    def cudaMemcpy2DAsync(
        self, target: int, target_pitch: int, source: int, source_pitch: int,
        width: int, height: int, kind: int, stream: int,
    ) -> tuple[Status]:  # fmt: skip
        assert width <= min(target_pitch, source_pitch)
        assert kind == 3
        for row in range(height):
            ctypes.memmove(target + row * target_pitch, source + row * source_pitch, width)
        return self._done("copy2d", stream)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:
        return self._done("synchronize", stream)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Status]:
        return self._done("begin capture", stream)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, str]:
        return (*self._done("end capture", stream), "graph")

    def cudaGraphInstantiate(self, graph: str, flags: int) -> tuple[Status, str]:
        return Status.cudaSuccess, f"executable {graph}"

    def cudaGraphLaunch(self, executable: str, stream: int) -> tuple[Status]:
        assert executable == "executable graph"
        return self._done("launch", stream)

    def _block(self, size: int) -> int:
        # As of cudaMalloc: full of what was there before, and aligned.
        block = ctypes.create_string_buffer(b"\xaa" * (size + 256), size + 256)
        self._blocks.append(block)
        address = ctypes.addressof(block)
        return address + -address % 256

    def _done(self, name: str, stream: int) -> tuple[Status]:
        self._check_device()
        assert stream == 77
        self.calls.append(name)
        return (Status.cudaSuccess,)

    def _check_device(self) -> None:
        assert getattr(self._chosen, "device", 0) == 1, "the thread works on another GPU"


def installed(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeCuda:
    """For the time of a test, what imports CUDA gets this one."""
    bindings = types.ModuleType("cuda.bindings")
    vars(bindings)["runtime"] = cuda
    modules = {"cuda": types.ModuleType("cuda"), bindings.__name__: bindings, "cuda.bindings.runtime": cuda}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("engine.runners.cuda_memory", "engine.runners.tensorrt_executor"):
        # Restored to absent, too: it must not keep the stand-in for the next test.
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        del sys.modules[name]
    return cuda
