"""From a folder to an engine that can run, on the device that suits it, and the card that describes it.

The device is the one that config.pbtxt names, else the one that Triton placed the engine on. On the CPU it is
our own kernels where they can run the model, else ONNX Runtime. On a GPU (experimental, not run on one yet)
the host is checked, then what fits the GPU's memory, and then the graph is loaded.

A request to the engine step of `{"describe": true}`, with any token ids, is answered by one final chunk of
`{"describe": {…}}`, the card.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from engine.core.contract import DeviceChoice, KernelsChoice
from engine.core.errors import SettingsError
from engine.edge.artifact import KvDtype, Manifest, verify_files
from engine.edge.container import free_memory
from engine.edge.settings import Footprint, Settings, check_fit
from engine.runners.cuda import import_tensorrt, open_cuda_session, open_memory
from engine.runners.cuda_runner import CudaRunner
from engine.runners.kernel_runner import BLOCK, KernelRunner, KernelWeights, read_sizes
from engine.runners.kernels import (
    INDEX,
    LEVELS,
    Kernels,
    KernelsMissing,
    KernelUse,
    Why,
    levels_here,
    load_kernels,
)
from engine.runners.memory import DeviceMemory
from engine.runners.onnx_runner import OnnxRunner, open_session
from engine.runners.runner import Executor, Runner
from engine.runners.tensorrt_plan import TENSORRT, Plan, check_host, check_settings, read_plan
from engine.runners.tensorrt_runner import TensorRtRunner


@dataclass(frozen=True, slots=True)
class Device:
    """`gpu` is a GPU's index as CUDA counts them; None is the CPU."""

    gpu: int | None = None

    def __str__(self) -> str:
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"


def choose_device(choice: DeviceChoice, *, needs_gpu: str | None, placed: int | None) -> Device:
    """`placed` is the GPU that Triton gave the instance, None for KIND_CPU; `needs_gpu` is the part of the
    engine that no CPU runs, if any. Raises SettingsError for such an engine on a CPU.
    """
    if needs_gpu and choice is DeviceChoice.CPU:
        raise SettingsError("device", f"cpu, {needs_gpu} needs cuda; or build the engine in int8 for a CPU")
    if choice is DeviceChoice.CPU or (choice is DeviceChoice.AUTO and placed is None and not needs_gpu):
        return Device()
    return Device(placed or 0)


@dataclass(frozen=True, slots=True)
class Opened:
    """`manifest` is the one that is served, `budget_bytes` the memory that its footprint had to fit, `device`
    is "cpu" or "cuda:0"; `kernels` is None for an engine on a GPU.
    """

    manifest: Manifest
    runner: Runner
    footprint: Footprint
    budget_bytes: int | None = None
    device: str = "cpu"
    kernels: KernelUse | None = None

    @property
    def computes(self) -> str:
        """What computes there: kernels, or a dialect's runtime."""
        return "kernels" if self.kernels and self.kernels.level else self.manifest.dialect


def open_cpu_runner(manifest: Manifest, settings: Settings) -> Opened:
    """Raises SettingsError for what does not fit and for kernels that are asked for and do not run,
    ArtifactError for graphs or weights that cannot run here.
    """
    try:
        kernels = _kernels(manifest, settings.kernels)
    except KernelsMissing as error:
        if settings.kernels in (KernelsChoice.AUTO, KernelsChoice.OFF):
            return _open_onnx(manifest, settings, KernelUse(None, error.why, str(error)))
        runs = f"; this machine runs {', '.join(levels_here()) or 'no level'}"
        instead = "" if error.why is Why.MODEL else runs
        raise SettingsError("kernels", f"{settings.kernels}, {error}{instead}") from None
    return _open_kernels(manifest, settings, kernels)


def _kernels(manifest: Manifest, choice: KernelsChoice) -> Kernels:
    """Raises KernelsMissing."""
    if choice is KernelsChoice.OFF:
        raise KernelsMissing(Why.OFF, "the setting kernels is off")
    if INDEX not in manifest.files:
        problem = f"the engine has no {INDEX}: they run int8 decoders of the Llama line"
        raise KernelsMissing(Why.MODEL, problem)
    return load_kernels([choice] if choice in LEVELS else list(LEVELS))


def _open_kernels(manifest: Manifest, settings: Settings, kernels: Kernels) -> Opened:
    # The kernels keep keys and values as half floats, whatever the graph's type is.
    manifest = replace(manifest, shape=replace(manifest.shape, kv_dtype=KvDtype.FLOAT16))
    shape = manifest.shape
    verify_files(manifest, (INDEX,))
    model = ctypes.byref(read_sizes(manifest.folder))
    footprint = Footprint(shape, BLOCK, lambda capacity: kernels.library.halimede_scratch(model, capacity))
    budget = check_fit(settings, footprint, free_memory())
    verify_files(manifest, tuple({*manifest.files, "tokens.bin"}))
    weights = KernelWeights(manifest.folder, shape.max_positions)
    sizes = settings.slots, settings.max_context, settings.thread_count
    runner = KernelRunner(kernels.library, weights, *sizes)
    return Opened(manifest, runner, footprint, budget, kernels=KernelUse(kernels.level))


def _open_onnx(manifest: Manifest, settings: Settings, kernels: KernelUse) -> Opened:
    shape = manifest.shape
    footprint = Footprint(shape)
    budget = check_fit(settings, footprint, free_memory())
    graphs = ("model.onnx", "encoder.onnx") if shape.has_encoder else ("model.onnx",)
    verify_files(manifest, tuple({*manifest.files, *graphs, "tokens.bin"}))
    sessions = [open_session(manifest.path(graph), settings.thread_count) for graph in graphs]
    encoder = sessions[1] if shape.has_encoder else None
    sizes = settings.slots, settings.max_context, settings.prefill_chunk
    runner = OnnxRunner(sessions[0], shape, *sizes, encoder, settings.source_capacity(shape))
    return Opened(manifest, runner, footprint, budget, kernels=kernels)


def needs_gpu(manifest: Manifest) -> str | None:
    """The part of the engine that no CPU runs, or None."""
    if manifest.dialect == TENSORRT:
        return "a TensorRT engine"
    kind = manifest.shape.kv_dtype
    return None if kind is KvDtype.FLOAT32 else f"a {kind} KV cache"


def open_gpu_runner(manifest: Manifest, settings: Settings, gpu: int) -> Runner:
    """The runner of the manifest's dialect.

    Raises SettingsError for what the host lacks and for settings that do not fit, ArtifactError for a graph
    that cannot run here.
    """
    memory = open_memory(gpu)
    left = max(memory.free_bytes - manifest.size_bytes, 0)
    if manifest.dialect == TENSORRT:
        plan, tensorrt = read_plan(manifest), import_tensorrt()
        check_host(plan, manifest, tensorrt.__version__, memory.compute_capability)
        executor = import_module("engine.runners.tensorrt_executor").TensorRtExecutor
        return tensorrt_runner(
            manifest, settings, plan, memory, left, lambda path: executor(tensorrt, path, memory)
        )
    check_fit(settings, Footprint(manifest.shape), left)
    verify_files(manifest, tuple({*manifest.files, "model.onnx", "tokens.bin"}))
    shape = manifest.shape
    decoder = open_cuda_session(manifest.path("model.onnx"), memory, shape)
    encoder = open_cuda_session(manifest.path("encoder.onnx"), memory, shape) if shape.has_encoder else None
    sizes = settings.slots, settings.max_context, settings.prefill_chunk, settings.source_capacity(shape)
    return CudaRunner(decoder, encoder, shape, memory, *sizes)


def tensorrt_runner(
    manifest: Manifest,
    settings: Settings,
    plan: Plan,
    memory: DeviceMemory,
    free_bytes: int,
    open_executor: Callable[[Path], Executor],
) -> TensorRtRunner:
    """The runner of a plan, which `open_executor` loads once all has been found to fit."""
    shape = manifest.shape
    settings = check_settings(plan, manifest, settings)
    check_fit(settings, Footprint(shape), free_bytes)
    verify_files(manifest, tuple({*manifest.files, "model.plan", "tokens.bin"}))
    decoder = open_executor(manifest.path("model.plan"))
    encoder = open_executor(manifest.path("encoder.plan")) if shape.has_encoder else None
    sizes = settings.slots, plan.capacity, settings.prefill_chunk, plan.source_capacity
    return TensorRtRunner(decoder, encoder, shape, memory, *sizes)


_LONGEST_REQUEST: Final = 64


def card_of(opened: Opened, settings: Settings) -> dict[str, Any]:
    """`runner` is what computes: the kernels, whose level is `kernels`, or a dialect's runtime;
    `kernels_missing` is the reason for no kernels. Sizes are bytes, limits are tokens and requests. Engines
    on a GPU are `experimental`: none has run on one yet.
    """
    manifest, kernels = opened.manifest, opened.kernels
    return {
        "name": manifest.name,
        "task": manifest.task,
        "dialect": manifest.dialect,
        "precision": manifest.precision,
        "size_bytes": manifest.size_bytes,
        "quality": dict(manifest.quality),
        "model": dict(manifest.model),
        "licence": manifest.licence,
        "slots": settings.slots,
        "max_context": settings.max_context,
        "max_source": settings.source_capacity(manifest.shape),
        "max_queue": settings.max_queue,
        "device": opened.device,
        "experimental": opened.device != "cpu",
        "runner": opened.computes,
        "kernels": kernels and kernels.level,
        "kernels_missing": kernels and kernels.missing,
        "speculative_tokens": settings.speculative_tokens,
    } | _kv_cache(opened, settings)


def _kv_cache(opened: Opened, settings: Settings) -> dict[str, int | None]:
    """A token of an answer takes a position, and one of a prompt, which with an encoder is the source.

    `kv_max_context` is the largest max_context that so many slots could have within the budget.
    """
    manifest, footprint, budget = opened.manifest, opened.footprint, opened.budget_bytes
    shape = manifest.shape
    if manifest.dialect == TENSORRT:
        settings = check_settings(read_plan(manifest), manifest, settings)
    return {
        "kv_bytes_per_token": shape.kv_bytes(1, 1),
        "kv_bytes_per_source_token": shape.kv_bytes(1, 0, 1) if shape.has_encoder else 0,
        "kv_bytes_per_slot": footprint.cache(replace(settings, slots=1)),
        "kv_bytes": footprint.cache(settings),
        "kv_budget_bytes": budget,
        "kv_max_context": None if budget is None else footprint.max_context(settings, budget),
    }


def asks_to_describe(request: str) -> bool:
    """Whether this is the request above, and not one for an answer."""
    if len(request) > _LONGEST_REQUEST:
        return False
    try:
        return bool(json.loads(request) == {"describe": True})
    except (ValueError, RecursionError):
        return False


def description_chunk(description: dict[str, Any]) -> bytes:
    return json.dumps({"describe": description}, separators=(",", ":")).encode()
