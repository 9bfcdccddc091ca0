"""Opens an engine on the CPU: on the processor's own kernels where they can run it, else on ONNX Runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace

from engine.errors import SettingsError
from engine.inference import open_session
from engine.kernel_weights import INDEX, KernelWeights
from engine.kernels import KernelsMissing, load_kernels
from engine.manifest import KvDtype, Manifest, verify_files
from engine.runner import Runner
from engine.runner_kernels import KernelRunner
from engine.runner_onnx import OnnxRunner
from engine.settings import KernelChoice, Settings, check_fit, free_memory

Report = Callable[[BaseException], None]


def open_cpu_runner(manifest: Manifest, settings: Settings, report: Report) -> tuple[Manifest, Runner]:
    """With the manifest as it is served: what keys and values are of depends on who computes them.

    `report` is told why the kernels do not run an engine that they could run. Raises SettingsError for what
    does not fit, ArtifactError for graphs or weights that cannot run here.
    """
    library = _kernels(manifest, settings.kernels, report)
    return _open_onnx(manifest, settings) if library is None else _open_kernels(manifest, settings, library)


def _kernels(manifest: Manifest, choice: KernelChoice, report: Report) -> ctypes.CDLL | None:
    """Raises SettingsError where they are asked for and cannot run."""
    if choice is KernelChoice.OFF:
        return None
    try:
        if INDEX not in manifest.files:
            raise KernelsMissing(f"the engine has no {INDEX}: they run int8 decoders of the Llama line")
        return load_kernels().library
    except KernelsMissing as why:
        if choice is KernelChoice.ON:
            raise SettingsError("kernels", f"on, {why}") from None
        if INDEX in manifest.files:
            report(KernelsMissing(f"{manifest.name} runs on ONNX Runtime, which is slower: {why}"))
        return None


def _open_kernels(manifest: Manifest, settings: Settings, library: ctypes.CDLL) -> tuple[Manifest, Runner]:
    manifest = replace(manifest, shape=replace(manifest.shape, kv_dtype=KvDtype.FLOAT16))
    check_fit(settings, manifest.shape, free_memory())
    verify_files(manifest, tuple({*manifest.files, INDEX, "tokens.bin"}))
    weights = KernelWeights(manifest.folder)
    return manifest, KernelRunner(
        library, weights, settings.slots, settings.max_context, settings.thread_count
    )


def _open_onnx(manifest: Manifest, settings: Settings) -> tuple[Manifest, Runner]:
    shape = manifest.shape
    check_fit(settings, shape, free_memory())
    graphs = ("model.onnx", "encoder.onnx") if shape.has_encoder else ("model.onnx",)
    verify_files(manifest, tuple({*manifest.files, *graphs, "tokens.bin"}))
    sessions = [open_session(manifest.path(graph), settings.thread_count) for graph in graphs]
    encoder = sessions[1] if shape.has_encoder else None
    sizes = settings.slots, settings.max_context, settings.prefill_chunk
    return manifest, OnnxRunner(sessions[0], shape, *sizes, encoder, settings.source_capacity(shape))
