"""Experimental, never run on a GPU: a host with TensorRT and a GPU, where plans are built and verified.

A plan runs only on the version of TensorRT and the kind of GPU that built it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from build.dialects.tensorrt.builder import Toolkit
from build.dialects.tensorrt.cuda import Cuda
from build.dialects.tensorrt.executor_plan import PlanExecutor
from build.dialects.tensorrt.session import Executor
from build.dialects.tensorrt.toolkit import Missing, TensorRtToolkit, imported, tensorrt


class Host(Protocol):
    @property
    def toolkit(self) -> Toolkit: ...

    @property
    def version(self) -> str:
        """The version of TensorRT."""

    @property
    def compute_capability(self) -> str:
        """The GPU's compute capability, such as "9.0"."""

    def executor(self, plan: Path, rows: int, encoder: Path | None) -> AbstractContextManager[Executor]:
        """Runs a plan; its memory is free again when the context ends."""


@dataclass(frozen=True)
class GpuHost:
    toolkit: TensorRtToolkit
    runtime: Any
    compute_capability: str

    @property
    def version(self) -> str:
        return str(self.toolkit.module.__version__)

    @contextmanager
    def executor(self, plan: Path, rows: int, encoder: Path | None) -> Iterator[Executor]:
        cuda = Cuda(self.runtime)
        try:
            yield PlanExecutor(self.toolkit.module, cuda, plan, rows, encoder)
        finally:
            cuda.close()


def find_host(timings: Path) -> GpuHost:
    """This host, on its first GPU (CUDA_VISIBLE_DEVICES chooses); raises Missing with what it lacks."""
    toolkit = tensorrt(timings)
    runtime = imported("cuda.bindings.runtime", "docs/gpu.md says what a GPU host has")
    return GpuHost(toolkit, runtime, compute_capability(runtime))


def compute_capability(runtime: Any) -> str:
    """The first GPU's; raises Missing where there is no GPU that CUDA can use."""
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess or not count:
        raise Missing(f"no GPU that CUDA can use ({status.name}): nvidia-smi shows those there are")
    kinds = runtime.cudaDeviceAttr
    numbers = []
    for kind in (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor):
        status, number = runtime.cudaDeviceGetAttribute(kind, 0)
        if status != runtime.cudaError_t.cudaSuccess:
            raise Missing(f"the GPU does not answer ({status.name}): nvidia-smi may say why")
        numbers.append(number)
    return ".".join(map(str, numbers))
