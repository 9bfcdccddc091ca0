"""On a GPU: its memory, and its runners against the CPU's. `make gpu-check` runs these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.architecture import describe
from build.architecture.parts import Architecture
from build.dialects.contents import Scored
from build.dialects.tensorrt.builder import check_and_serialise, decode_profile, prefill_profile
from build.dialects.tensorrt.toolkit import tensorrt
from build.quantise import Precision
from engine.edge.artifact import KvDtype
from engine.runners.cuda import import_tensorrt, open_cuda_session, open_memory
from engine.runners.cuda_runner import CudaRunner
from engine.runners.memory import HostMemory
from engine.runners.onnx_runner import OnnxRunner, open_session
from engine.runners.tensorrt_runner import TensorRtRunner
from tests.models import engines, tensorrt_graphs, tiny
from tests.unit.engine.runners.runner_play import CAPACITY, CHUNK, SLOTS, Moves, compare, shape_of
from tests.unit.engine.runners.test_memory_cuda import played

pytestmark = pytest.mark.gpu

SIZES = (SLOTS, CAPACITY, CHUNK)
PLAYS = [
    Moves((5, 20, 44, 9), a=1, b=3, copied=(2, 8), cross=True, rows=4),
    Moves((8, 1, 16, 33), a=0, b=2, copied=(0, 8), cross=True, rows=3),
]
# Random weights at float16: a bound on the distance from the logits of float32, not a measure of quality.
TOLERANCE = 0.1


@pytest.fixture
def model(tmp_path: Path) -> tuple[Any, Architecture]:
    """The checkpoint of a tiny model, and its description."""
    checkpoint = tiny.opened(tiny.write_folder(tmp_path / "checkpoint", "llama"))
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Architecture)
    return checkpoint, architecture


def reference(folder: Path, model: tuple[Any, Architecture]) -> OnnxRunner:
    engine = engines.write_engine(folder / "reference", *model, Precision.FP32)
    session = open_session(engine.folder / f"{Scored.LAST.value}.onnx", threads=1)
    return OnnxRunner(session, shape_of(session), *SIZES)


def test_its_memory_moves_what_the_hosts_moves() -> None:
    assert np.array_equal(played(open_memory(0)), played(HostMemory()))


@pytest.mark.parametrize("play", PLAYS)
def test_cuda_runs_as_the_cpu(tmp_path: Path, model: tuple[Any, Architecture], play: Moves) -> None:
    wanted = reference(tmp_path, model)
    graph = (
        engines.write_engine(tmp_path / "cuda", *model, Precision.FP16).folder / f"{Scored.LAST.value}.onnx"
    )
    shape = replace(wanted._shape, kv_dtype=KvDtype.FLOAT16)
    memory = open_memory(0)
    runner = CudaRunner(open_cuda_session(graph, memory, shape), None, shape, memory, *SIZES)
    compare(play.of_a_decoder, runner, wanted, TOLERANCE)


class Silent:
    """Progress that nobody sees."""

    def stage(self, _name: str, _steps: int) -> Callable[[], None]:
        return lambda: None


@pytest.mark.parametrize("play", PLAYS)
def test_tensorrt_runs_as_the_cpu(tmp_path: Path, model: tuple[Any, Architecture], play: Moves) -> None:
    """Three steps of each count of rows: plain, captured, replayed."""
    wanted = reference(tmp_path, model)
    graphs = tensorrt_graphs.write_graphs(tmp_path / "tensorrt", *model, Precision.FP16, CAPACITY)
    profiles = [decode_profile(SLOTS), prefill_profile(CHUNK)]
    toolkit = tensorrt(tmp_path / "timings")
    plan = tmp_path / "model.plan"
    plan.write_bytes(check_and_serialise(toolkit, graphs.model, profiles, Silent()))
    memory, shape = open_memory(0), replace(wanted._shape, kv_dtype=KvDtype.FLOAT16)
    # It imports CUDA, which only a GPU host has.
    module = import_module("engine.runners.tensorrt_executor")
    executor = module.TensorRtExecutor(import_tensorrt(), plan, memory)
    compare(play.of_a_decoder, TensorRtRunner(executor, None, shape, memory, *SIZES), wanted, TOLERANCE)
