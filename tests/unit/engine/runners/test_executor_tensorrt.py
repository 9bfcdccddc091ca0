"""How TensorRT is called, on stand-ins for it and for CUDA: what is shown here has not run on a GPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import ArtifactError, InternalError
from engine.runners.runner import Place, Profile
from tests.fakes.cuda import FakeCuda, installed
from tests.fakes.tensorrt import FakeEngine, fake_tensorrt

PLACES = {"input_ids": Place(512, (2, 1)), "logits": Place(1024, (2, 1, 9))}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return installed(monkeypatch, FakeCuda())


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(["input_ids"], ["logits"], [{"input_ids": (4, 1)}, {"input_ids": (1, 8)}])


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "model.plan"
    path.write_bytes(b"plan")
    return path


def executor(engine: FakeEngine | None, plan: Path) -> Any:
    memory = importlib.import_module("engine.runners.cuda_memory").CudaMemory(1)
    module = importlib.import_module("engine.runners.tensorrt_executor")
    return module.TensorRtExecutor(fake_tensorrt(engine), plan, memory)


def test_a_repeated_step_runs_then_is_captured_then_replayed(
    cuda: FakeCuda, engine: FakeEngine, plan: Path
) -> None:
    step = executor(engine, plan).prepare(Profile.DECODE, PLACES, repeated=True)
    cuda.calls.clear()
    step.run()
    assert (cuda.calls, len(engine.runs)) == ([], 1)
    step.run()
    assert (cuda.calls, len(engine.runs)) == (["begin capture", "end capture", "launch"], 2)
    step.run()
    step.run()
    assert (cuda.calls[3:], len(engine.runs)) == (["launch", "launch"], 2)


def test_another_step_is_run_as_it_is(cuda: FakeCuda, engine: FakeEngine, plan: Path) -> None:
    found = executor(engine, plan)
    cuda.calls.clear()
    for length in (3, 8, 3):
        places = PLACES | {"input_ids": Place(512, (1, length))}
        found.prepare(Profile.PREFILL, places, repeated=False).run()
    assert [(profile, shapes["input_ids"]) for profile, shapes, _ in engine.runs] == [
        (Profile.PREFILL, (1, length)) for length in (3, 8, 3)
    ]
    assert (cuda.calls, len(engine.contexts)) == ([], 1)


def test_steps_that_are_replayed_have_contexts_of_their_own_over_one_block(
    cuda: FakeCuda, engine: FakeEngine, plan: Path
) -> None:
    found = executor(engine, plan)
    for rows in (1, 2, 4):
        places = PLACES | {"input_ids": Place(512, (rows, 1))}
        found.prepare(Profile.DECODE, places, repeated=True)
    assert len(engine.contexts) == 3
    assert len({context.memory for context in engine.contexts}) == 1
    assert [context.addresses for context in engine.contexts] == [{"input_ids": 512, "logits": 1024}] * 3


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        (PLACES | {"input_ids": Place(512, (5, 1))}, r"input_ids of shape \(5, 1\) does not fit its profile"),
        (PLACES | {"logits": Place(1025, (2, 1, 9))}, r"logits of shape \(2, 1, 9\) does not fit"),
        ({"input_ids": PLACES["input_ids"]}, r"its tensors are not the server's \(logits\)"),
        (PLACES | {"extra": PLACES["logits"]}, r"its tensors are not the server's \(extra\)"),
    ],
)
def test_places_that_the_plan_does_not_take_are_refused(
    cuda: FakeCuda, engine: FakeEngine, plan: Path, places: dict[str, Place], problem: str
) -> None:
    with pytest.raises(ArtifactError, match=rf"^INTERNAL: model\.plan: {problem}.*; build it again$"):
        executor(engine, plan).prepare(Profile.DECODE, places, repeated=True)


def test_a_plan_without_a_second_profile_is_refused_for_a_prefill(cuda: FakeCuda, plan: Path) -> None:
    engine = FakeEngine(["input_ids"], ["logits"], [{}])
    with pytest.raises(ArtifactError, match="it has no profile prefill; build it again"):
        executor(engine, plan).prepare(Profile.PREFILL, PLACES, repeated=False)


def test_a_plan_that_does_not_load_is_refused(cuda: FakeCuda, plan: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^INTERNAL: model\.plan: TensorRT cannot load it"):
        executor(None, plan)


def test_a_step_that_is_not_enqueued_leaves_no_capture_open(
    cuda: FakeCuda, engine: FakeEngine, plan: Path
) -> None:
    step = executor(engine, plan).prepare(Profile.DECODE, PLACES, repeated=True)
    step.run()
    engine.works = False
    with pytest.raises(InternalError, match=r"^INTERNAL: tensorrt: a step was not enqueued"):
        step.run()
    assert cuda.calls[-2:] == ["begin capture", "end capture"]
