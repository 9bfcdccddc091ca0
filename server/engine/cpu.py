"""Opens an engine on the CPU: on the processor's own kernels where they can run it, else on ONNX Runtime."""

from __future__ import annotations

import ctypes
from dataclasses import replace

from engine.container import free_memory
from engine.contract import KernelsChoice
from engine.errors import SettingsError
from engine.inference import open_session
from engine.kernel_index import INDEX
from engine.kernel_weights import KernelWeights, read_sizes
from engine.kernels import LEVELS, Kernels, KernelsMissing, KernelUse, Why, levels_here, load_kernels
from engine.manifest import KvDtype, Manifest, verify_files
from engine.opened import Opened
from engine.runner_kernels import BLOCK, KernelRunner
from engine.runner_onnx import OnnxRunner
from engine.settings import Footprint, Settings, check_fit


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
