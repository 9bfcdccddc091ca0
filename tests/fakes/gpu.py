"""A GPU host that is not there: the CUDA runtime over host memory, and plans that ONNX Runtime runs on a CPU.

A "plan" is a file that names the ONNX file it stands for. What verifies a plan is here, and no more; what is
refused is what TensorRT would refuse.
"""

from __future__ import annotations

import ctypes
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir

from build.dialects.tensorrt.executor_cpu import open_graph

Answer = tuple[Any, ...]
Shapes = dict[str, tuple[int, ...]]


class _Status(Enum):
    """As CUDA names them."""

    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815


OK = _Status.cudaSuccess


class FakeCuda:
    """`cuda.bindings.runtime`, with `gpus` of compute capability 9.0 and so much memory each."""

    cudaError_t = _Status  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaDeviceAttr = SimpleNamespace(  # noqa: N815
        cudaDevAttrComputeCapabilityMajor="major", cudaDevAttrComputeCapabilityMinor="minor"
    )

    def __init__(self, gpus: int = 1, memory: int = 1 << 30) -> None:
        self.gpus, self.memory = gpus, memory
        self.blocks: dict[int, Any] = {}

    def cudaGetDeviceCount(self) -> Answer:
        return (OK, self.gpus) if self.gpus else (_Status.cudaErrorNoDevice, 0)

    def cudaDeviceGetAttribute(self, kind: str, device: int) -> Answer:
        return OK, {"major": 9, "minor": 0}[kind]

    def cudaStreamCreate(self) -> Answer:
        return OK, 7

    def cudaStreamSynchronize(self, stream: int) -> Answer:
        assert stream == 7
        return (OK,)

    def cudaMalloc(self, size: int) -> Answer:
        if size > self.memory:
            return _Status.cudaErrorMemoryAllocation, 0
        block = (ctypes.c_uint8 * (size + 256))()
        address = -(-ctypes.addressof(block) // 256) * 256
        self.blocks[address] = block
        return OK, address

    def cudaFree(self, address: int) -> Answer:
        del self.blocks[address]
        return (OK,)

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> Answer:
        ctypes.memset(address, value, size)
        return (OK,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> Answer:
        ctypes.memmove(target, source, size)
        return (OK,)

    def cudaMemcpy2DAsync(
        self,
        target: int,
        target_pitch: int,
        source: int,
        source_pitch: int,
        width: int,
        rows: int,
        kind: int,
        stream: int,
    ) -> Answer:
        assert width <= min(target_pitch, source_pitch)
        for row in range(rows):
            ctypes.memmove(target + row * target_pitch, source + row * source_pitch, width)
        return (OK,)


def fake_tensorrt(profiles: list[dict[str, tuple[int, int]]]) -> Any:
    """The module; a profile has the least and the most of each dynamic dimension."""
    mode = SimpleNamespace(INPUT="input", OUTPUT="output")
    logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, severity: None})
    return SimpleNamespace(
        __version__="11.4.0",
        TensorIOMode=mode,
        Logger=logger,
        Runtime=lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda plan: _Engine(Path(plan.decode()), profiles)
        ),
    )


class _Engine:
    def __init__(self, graph: Path, profiles: list[dict[str, tuple[int, int]]]) -> None:
        self.profiles = profiles
        self.graph = ir.load(graph).graph
        self.inputs = [str(value.name) for value in self.graph.inputs]
        self.values = {str(value.name): value for value in (*self.graph.inputs, *self.graph.outputs)}
        self.session = open_graph(graph)

    @property
    def num_io_tensors(self) -> int:
        return len(self.values)

    def get_tensor_name(self, index: int) -> str:
        return list(self.values)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.values[name].shape
        assert shape
        return tuple(size if isinstance(size, int) else -1 for size in shape)

    def get_tensor_dtype(self, name: str) -> Any:
        dtype = self.values[name].dtype
        assert dtype
        return SimpleNamespace(itemsize=int(dtype.itemsize))

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.profile: int | None = None
        self.shapes: Shapes = {}
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return profile < len(self.engine.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        declared = self.engine.values[name].shape
        assert declared
        most = self.engine.profiles[self.profile]
        self.shapes[name] = shape
        for size, known in zip(shape, declared, strict=True):
            least, limit = (known, known) if isinstance(known, int) else most[str(known.value)]
            if not least <= size <= limit:
                return False
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return not address % 256

    def execute_async_v3(self, stream: int) -> bool:
        assert self.addresses.keys() == set(self.engine.values)
        binding = self.engine.session.io_binding()
        sizes = self._dimensions()
        for name, value in self.engine.values.items():
            assert value.shape
            assert value.dtype
            shape = [size if isinstance(size, int) else sizes[str(size.value)] for size in value.shape]
            place = ("cpu", 0, int(value.dtype), shape, self.addresses[name])
            (binding.bind_input if name in self.engine.inputs else binding.bind_output)(name, *place)
        self.engine.session.run_with_iobinding(binding)
        return True

    def _dimensions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, shape in self.shapes.items():
            declared = self.engine.values[name].shape
            assert declared
            for size, known in zip(shape, declared, strict=True):
                if not isinstance(known, int):
                    assert found.setdefault(str(known.value), size) == size
        return found


def as_plan(graph: Path) -> Path:
    """A plan that stands for the graph."""
    plan = graph.with_suffix(".plan")
    plan.write_bytes(str(graph).encode())
    return plan
