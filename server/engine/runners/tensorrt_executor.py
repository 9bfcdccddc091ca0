"""Experimental: TensorRT itself behind `Executor`. It has not run on a GPU yet, and is therefore small.

The names are those of TensorRT 10.15 and later. Contexts share one block of activation memory, since steps
never overlap. A repeated step has its own context: its second run is captured as a CUDA graph, which all
later ones replay. (In the first run TensorRT does the work that it defers until a shape is first used.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cuda.bindings import runtime

from engine.core.errors import ArtifactError, InternalError
from engine.runners.cuda_memory import CudaMemory, checked
from engine.runners.runner import Place, Profile

_CAPTURE: Final = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal


class TensorRtStep:
    def __init__(self, context: Any, stream: int, *, repeated: bool) -> None:
        self._context = context
        self._stream = stream
        self._capture_next = False
        self._repeated = repeated
        self._graph: Any = None

    def run(self) -> None:
        if self._capture_next:
            self._graph = self._captured()
            self._capture_next = False
        if self._graph is not None:
            checked(runtime.cudaGraphLaunch(self._graph, self._stream))
            return
        self._enqueue()
        self._capture_next = self._repeated

    def _captured(self) -> Any:
        checked(runtime.cudaStreamBeginCapture(self._stream, _CAPTURE))
        try:
            self._enqueue()
        finally:  # a stream that is left capturing takes no more work
            ended = runtime.cudaStreamEndCapture(self._stream)
        return checked(runtime.cudaGraphInstantiate(checked(ended), 0))

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise InternalError("tensorrt", "a step was not enqueued; see TensorRT's log")


class TensorRtExecutor:
    """`tensorrt` is the Python package; the plan stays in the GPU's memory as long as this lives."""

    def __init__(self, tensorrt: Any, plan: Path, memory: CudaMemory) -> None:
        self._tensorrt = tensorrt
        self._plan = plan.name
        self._memory = memory
        memory.select()
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise ArtifactError(plan.name, "TensorRT cannot load it, see its log; build it on this host")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._tensors = frozenset(names)
        self.inputs = frozenset(
            name for name in names if self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
        )
        self._activation_bytes = max(self._engine.device_memory_size_v2, 1)
        self._activations = memory.allocate(self._activation_bytes)
        self._once: dict[Profile, Any] = {}

    def prepare(self, profile: Profile, places: Mapping[str, Place], *, repeated: bool) -> TensorRtStep:
        self._memory.select()
        if places.keys() != self._tensors:
            different = ", ".join(sorted(places.keys() ^ self._tensors))
            raise ArtifactError(self._plan, f"its tensors are not the server's ({different}); build it again")
        context = self._context(profile) if repeated else self._shared_context(profile)
        for name, place in places.items():
            taken = name not in self.inputs or context.set_input_shape(name, place.shape)
            if not (taken and context.set_tensor_address(name, place.address)):
                problem = f"{name} of shape {place.shape} does not fit its profile {profile.name.lower()}"
                raise ArtifactError(self._plan, f"{problem}; build it again")
        return TensorRtStep(context, self._memory.stream, repeated=repeated)

    def _shared_context(self, profile: Profile) -> Any:
        if profile not in self._once:
            self._once[profile] = self._context(profile)
        return self._once[profile]

    def _context(self, profile: Profile) -> Any:
        strategy = self._tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise InternalError("tensorrt", "no execution context could be made; see TensorRT's log")
        context.set_device_memory(self._activations, self._activation_bytes)
        if not context.set_optimization_profile_async(int(profile), self._memory.stream):
            raise ArtifactError(self._plan, f"it has no profile {profile.name.lower()}; build it again")
        return context
