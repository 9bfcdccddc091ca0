"""What verifies a plan, on a GPU that is faked; the room that plans have, and what builds have timed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.architecture import describe
from build.architecture.parts import Architecture
from build.dialects.tensorrt.cuda import Cuda
from build.dialects.tensorrt.executor_plan import PlanExecutor
from build.dialects.tensorrt.host import GpuHost, compute_capability
from build.dialects.tensorrt.session import Session
from build.dialects.tensorrt.sizes import Room, sizes
from build.dialects.tensorrt.toolkit import Missing, TensorRtToolkit
from build.errors import BuildError
from build.quantise import Precision
from tests.fakes.gpu import FakeCuda, as_plan, fake_tensorrt
from tests.models import tiny
from tests.models.tensorrt_graphs import write_graphs

IDS = np.random.default_rng(3).integers(3, len(tiny.VOCAB), 30)
PROFILES = [{"batch": (1, 4), "seq": (1, 1)}, {"batch": (1, 2), "seq": (1, 16)}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "checkpoint", "gemma3_text")


def test_a_plan_is_stepped_as_the_graph_it_was_made_of(folder: Path, tmp_path: Path) -> None:
    checkpoint = tiny.opened(folder)
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Architecture)
    graphs = write_graphs(tmp_path / "engine", checkpoint, architecture, Precision.FP16)
    runtime = FakeCuda()
    cuda = Cuda(runtime)
    plan = PlanExecutor(fake_tensorrt(PROFILES), cuda, as_plan(graphs.model), rows=3)
    sessions = Session(plan, 3), graphs.session(rows=3)
    for row, start in enumerate((5, 16, 9)):
        actual, expected = (session.prefill(row, IDS[:start]) for session in sessions)
        np.testing.assert_array_equal(actual, expected)
    for step in range(4):
        actual, expected = (session.decode(IDS[step : step + 3]) for session in sessions)
        np.testing.assert_array_equal(actual, expected)
    with pytest.raises(BuildError, match=r"last.plan: input_ids \(1, 17\) does not fit profile prefill"):
        sessions[0].prefill(0, IDS[:17])
    cuda.close()
    assert not runtime.blocks


@pytest.mark.parity
def test_a_plan_pair_is_stepped_as_its_graphs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.models import tiny_seq2seq  # noqa: PLC0415  (needs torch)
    from tests.models.seq2seq_engines import open_model  # noqa: PLC0415
    from tests.models.tensorrt_graphs import write_pair  # noqa: PLC0415

    checkpoint, model = open_model(tiny_seq2seq.write_folder(tmp_path / "checkpoint", "flan-t5"))
    pair = write_pair(tmp_path / "engine", checkpoint, model, Precision.INT8)
    module = fake_tensorrt([{"batch": (1, 4), "seq": (1, 1), "source": (1, 40)}])
    plans = [as_plan(pair.folder / name) for name in ("last.onnx", "encoder.onnx")]
    sessions = Session(PlanExecutor(module, Cuda(FakeCuda()), plans[0], 2, plans[1]), 2), pair.session(rows=2)
    ids = IDS % 40
    for session in sessions:
        session.encode(1, ids[:25])
        session.encode(0, ids[:3])
    for step in range(4):
        actual, expected = (session.decode(ids[step : step + 2]) for session in sessions)
        np.testing.assert_array_equal(actual, expected)


def test_a_gpu_that_is_out_of_memory_is_no_riddle() -> None:
    with pytest.raises(BuildError, match="cudaErrorMemoryAllocation: is the GPU out of memory"):
        Cuda(FakeCuda(memory=10)).allocate(11)


def test_the_compute_capability_is_that_of_the_gpu() -> None:
    assert compute_capability(FakeCuda()) == "9.0"
    with pytest.raises(Missing, match=r"no GPU that CUDA can use \(cudaErrorNoDevice\)"):
        compute_capability(FakeCuda(gpus=0))


@dataclass
class Config:
    """The timing cache of a builder's configuration; `foreign` is one of another GPU."""

    foreign: bytes = b"foreign"
    cache: bytes = b""

    def create_timing_cache(self, known: bytes) -> bytes:
        return known

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return cache != self.foreign

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.cache + b"+")


@pytest.mark.parametrize(("before", "after"), [(None, b"+"), (b"ours", b"ours+"), (b"foreign", b"+")])
def test_timings_grow_and_foreign_ones_are_begun_anew(
    before: bytes | None, after: bytes, tmp_path: Path
) -> None:
    timings = tmp_path / "cache" / "timings"
    if before is not None:
        timings.parent.mkdir()
        timings.write_bytes(before)
    config, built = Config(), TensorRtToolkit(SimpleNamespace(), timings)
    built.begin(config)
    built.end(config)
    assert timings.read_bytes() == after
    assert [path.name for path in timings.parent.iterdir()] == ["timings"]


@given(st.integers(1, 12), st.sampled_from([8, 24, 64, 80, 128]), st.integers(1, 4096), st.integers(1, 4096))
def test_every_row_of_a_cache_begins_where_tensorrt_takes_it(
    heads: int, head_dim: int, positions: int, asked: int
) -> None:
    plain = describe(tiny.config("llama"))
    assert isinstance(plain, Architecture)
    model = replace(plain, kv_heads=heads, head_dim=head_dim, max_positions=positions)
    found = sizes(model, Room(max_context=asked), 2)
    assert found.capacity * heads * head_dim * 2 % 256 == 0
    assert found.capacity <= max(min(positions, asked), 128)
    assert found.prefill <= found.capacity
    assert found.source_capacity == 0


def test_a_host_frees_the_gpu_behind_itself(folder: Path, tmp_path: Path) -> None:
    checkpoint = tiny.opened(folder)
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Architecture)
    graphs = write_graphs(tmp_path / "engine", checkpoint, architecture, Precision.FP16)
    runtime = FakeCuda()
    host = GpuHost(TensorRtToolkit(fake_tensorrt(PROFILES), tmp_path / "timings"), runtime, "9.0")
    assert host.version == "11.4.0"
    with host.executor(as_plan(graphs.model), 2, None) as executor:
        Session(executor, 2).decode(IDS[:2])
        assert runtime.blocks
    assert not runtime.blocks
