"""Experimental, not run on a GPU yet: opens a GPU runner. It checks the host, then what fits the GPU's
memory, and then loads the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from engine.cuda_host import import_tensorrt, open_cuda_session, open_memory
from engine.executor import Executor
from engine.manifest import KvDtype, Manifest, verify_files
from engine.memory import DeviceMemory
from engine.plan import TENSORRT, Plan, check_host, check_settings, read_plan
from engine.runner import Runner
from engine.runner_cuda import CudaRunner
from engine.runner_tensorrt import TensorRtRunner
from engine.settings import Footprint, Settings, check_fit


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
        executor = import_module("engine.executor_tensorrt").TensorRtExecutor
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
