"""The part of TensorRT's Python API that the server uses: it records, and refuses what TensorRT would."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.memory = memory, size

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return profile < len(self.engine.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        assert name in self.engine.inputs
        self.shapes[name] = shape
        return self.engine.profiles[self.profile].get(name, shape) >= shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return not address % 256

    def execute_async_v3(self, stream: int) -> bool:
        assert self.memory
        assert self.addresses.keys() == set(self.engine.names)
        self.engine.runs.append((self.profile, dict(self.shapes), stream))
        return self.engine.works


class FakeEngine:
    """`profiles` has the largest shape of the inputs that have one."""

    device_memory_size_v2 = 1000

    def __init__(self, inputs: list[str], outputs: list[str], profiles: list[Shapes]) -> None:
        self.inputs, self.names, self.profiles = inputs, [*inputs, *outputs], profiles
        self.contexts: list[FakeContext] = []
        self.runs: list[Any] = []
        self.works = True

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def create_execution_context(self, strategy: str) -> FakeContext:
        assert strategy == "user managed"
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


def fake_tensorrt(engine: FakeEngine | None) -> SimpleNamespace:
    """The module; its runtime loads `engine` from any plan."""
    logger = type("Logger", (), {"WARNING": "warning", "__init__": lambda self, severity: None})
    return SimpleNamespace(
        Logger=logger,
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
    )
