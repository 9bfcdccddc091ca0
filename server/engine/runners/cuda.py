"""Experimental, not run on a GPU yet: what a GPU engine needs from its host, checked before anything is
loaded, with a remedy for what is missing.

This module can be imported on any machine; the CUDA libraries are imported when they are needed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnxruntime as ort

from engine.core.errors import ArtifactError, SettingsError
from engine.edge.artifact import KvDtype, ModelShape
from engine.runners.onnx_runner import open_session

if TYPE_CHECKING:
    from engine.runners.cuda_memory import CudaMemory


_INSTALL: Final = "pip install -r server/requirements-gpu.txt"
_PROVIDER: Final = "CUDAExecutionProvider"


def open_memory(gpu: int) -> CudaMemory:
    """The memory of a GPU; raises SettingsError when it cannot be used, and why."""
    runtime = _imported("cuda.bindings.runtime", "cuda-bindings")
    check_gpu(runtime, gpu)
    module = import_module("engine.runners.cuda_memory")
    memory: CudaMemory = module.CudaMemory(gpu)
    return memory


def import_tensorrt() -> Any:
    """Raises SettingsError when TensorRT's Python package is not installed."""
    return _imported("tensorrt", "tensorrt")


def check_gpu(runtime: Any, gpu: int) -> None:
    """`runtime` is cuda.bindings.runtime; raises SettingsError unless GPU `gpu` can be used."""
    status, count = runtime.cudaGetDeviceCount()
    errors = runtime.cudaError_t
    if status == errors.cudaErrorInsufficientDriver:
        raise _unusable(_driver_problem(runtime))
    if status == errors.cudaErrorNoDevice:
        raise _unusable("there is no GPU; a container is given some by: docker run --gpus all")
    if status != errors.cudaSuccess:
        raise _unusable(f"CUDA does not start ({status.name}); nvidia-smi may say more")
    if gpu >= count:
        raise _unusable(f"there is no GPU {gpu}, this host has {count}; instance_group names them from 0")


def open_cuda_session(path: Path, memory: CudaMemory, shape: ModelShape) -> ort.InferenceSession:
    """A graph on ONNX Runtime's CUDA provider, on the stream of `memory`.

    Raises SettingsError when this onnxruntime has no CUDA or cannot start it, and ArtifactError for a graph
    that it cannot run there.
    """
    if shape.kv_dtype is KvDtype.FLOAT32:
        problem = "its KV cache is float32, attention on CUDA takes float16 or bfloat16; build it in fp16"
        raise ArtifactError(path.name, problem)
    if _PROVIDER not in ort.get_available_providers():
        remedy = f"pip uninstall onnxruntime, then {_INSTALL}: the two cannot be installed together"
        raise _unusable(f"this onnxruntime {ort.__version__} is built without CUDA; {remedy}")
    ort.preload_dlls()
    options = {"device_id": str(memory.place[1]), "user_compute_stream": str(memory.stream)}
    session = open_session(path, provider=(_PROVIDER, options))
    # ONNX Runtime continues without CUDA if one of CUDA's libraries does not load.
    if session.get_providers()[:1] != [_PROVIDER]:
        raise _unusable(f"onnxruntime {ort.__version__} did not start its CUDA provider; {_INSTALL}")
    return session


def _driver_problem(runtime: Any) -> str:
    _, driver = runtime.cudaDriverGetVersion()
    if not driver:
        return "no NVIDIA driver is loaded; nvidia-smi shows one that is"
    _, needed = runtime.cudaRuntimeGetVersion()
    versions = [f"{number // 1000}.{number % 1000 // 10}" for number in (driver, needed)]
    return f"the driver supports CUDA {versions[0]}, {versions[1]} is installed; update the NVIDIA driver"


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise _unusable(f"{package} is not installed ({error}); {_INSTALL}") from error


def _unusable(problem: str) -> SettingsError:
    return SettingsError("device", f"cuda, {problem}")
