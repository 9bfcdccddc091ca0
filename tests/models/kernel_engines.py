"""Tiny int8 engines with the kernels' index, and the runners over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort

from build.architecture import describe
from build.assemble_onnxruntime import DecoderAssembly
from build.quantise import Precision
from engine.edge.artifact import ModelShape
from engine.runners.kernel_runner import KernelRunner, KernelWeights
from engine.runners.kernels import load_kernels
from engine.runners.onnx_runner import OnnxRunner, open_session
from tests.models import tiny

SLOTS, CAPACITY, CHUNK = 6, 80, 16
VOCAB = len(tiny.VOCAB)


class Quiet:
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        assert name
        assert steps
        return lambda: None


def write_kernel_engine(folder: Path, family: str, **changes: Any) -> Path:
    checkpoint = tiny.opened(tiny.write_folder(folder / "checkpoint", family, **changes))
    (folder / "engine").mkdir()
    DecoderAssembly(checkpoint, describe(checkpoint.config), Precision.INT8).write(folder / "engine", Quiet())
    return folder / "engine"


def kernel_runner(folder: Path, threads: int = 2) -> KernelRunner:
    return KernelRunner(load_kernels().library, KernelWeights(folder), SLOTS, CAPACITY, threads)


def onnx_runner(folder: Path) -> OnnxRunner:
    session = open_session(folder / "model.onnx", threads=1)
    return OnnxRunner(session, shape_of(session), SLOTS, CAPACITY, CHUNK)


def shape_of(session: ort.InferenceSession) -> ModelShape:
    pasts = [value for value in session.get_inputs() if value.name.startswith("past_key_")]
    _, heads, _, size = pasts[0].shape
    return ModelShape(len(pasts), heads, size, VOCAB, 256)
