"""The runner for CUDA over the host's memory, on ONNX Runtime's CPU provider: OnnxRunner, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from build.architecture import describe
from build.dialects.scored import Scored
from build.quantise import Precision
from build.sources.folder import open_folder
from engine.manifest import ModelShape
from engine.memory import HostMemory
from engine.runner import Floats, Runner
from engine.runner_cuda import CudaRunner
from engine.runner_onnx import OnnxRunner, open_session
from tests import tiny
from tests.engines import Engine, write_engine

SLOTS, CAPACITY, CHUNK = 4, 48, 8
VOCAB = len(tiny.VOCAB)
SHAPE = ModelShape(layers=2, kv_heads=2, head_dim=16, vocab_size=VOCAB, max_positions=256)


@pytest.fixture(scope="module", params=[Precision.FP32, Precision.INT8], ids=lambda p: p.value)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("cuda")
    checkpoint = open_folder(tiny.write_folder(folder / "checkpoint", "llama"))
    return write_engine(folder / "engine", checkpoint, describe(checkpoint.config), request.param)


def graph(engine: Engine) -> Path:
    return engine.folder / f"{Scored.LAST.value}.onnx"


def runners(engine: Engine) -> tuple[CudaRunner, OnnxRunner]:
    session = open_session(graph(engine), threads=1)
    sizes = (SLOTS, CAPACITY, CHUNK)
    return CudaRunner(session, None, SHAPE, HostMemory(), *sizes), OnnxRunner(session, SHAPE, *sizes)


@dataclass(frozen=True)
class Play:
    """What a scheduler may ask for, on a runner and on what we know of its slots."""

    runner: Runner

    def fill(self, slot: int, tokens: list[int]) -> list[Floats]:
        starts = range(0, len(tokens), CHUNK)
        return [self.runner.prefill(slot, s, tokens[s : s + CHUNK]).copy() for s in starts]

    def decode(self, lengths: list[int], token: int) -> Floats:
        tokens = [token + row for row in range(len(lengths))]
        return self.runner.decode(tokens, lengths).copy()


def prompt(seed: int, length: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(3, VOCAB, length).tolist()
    return found


lengths = st.lists(st.integers(1, CAPACITY - 4), min_size=SLOTS, max_size=SLOTS)
slots = st.integers(0, SLOTS - 1)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths, slots, slots, st.data())
def test_it_is_the_runner_of_the_cpu(
    engine: Engine, rows: list[int], a: int, b: int, data: st.DataObject
) -> None:
    both = [Play(runner) for runner in runners(engine)]
    for slot, length in enumerate(rows):
        for found, wanted in zip(*(play.fill(slot, prompt(slot, length)) for play in both), strict=True):
            assert np.array_equal(found, wanted)
    copied = data.draw(st.integers(0, rows[a]))
    start = data.draw(st.integers(0, copied))
    for play in both:
        if a != b:
            play.runner.copy(a, b, copied, start=start)
        play.runner.swap(a, b, max(rows))
    count = data.draw(st.integers(1, SLOTS))
    for step in range(3):
        found, wanted = (play.decode([length + step for length in rows[:count]], 5) for play in both)
        assert np.array_equal(found, wanted)


def test_logits_may_be_written_to(engine: Engine) -> None:
    runner, _ = runners(engine)
    tokens = prompt(1, CHUNK)
    expected = runner.prefill(0, 0, tokens).copy()
    runner.prefill(0, 0, tokens)[:] = np.nan
    assert np.array_equal(runner.prefill(0, 0, tokens), expected)


def test_a_step_reads_no_other_slot(engine: Engine) -> None:
    """A slot whose memory is not a number does not show in the others' logits."""
    runner, _ = runners(engine)
    play = Play(runner)
    play.fill(0, prompt(0, 12))
    play.fill(1, prompt(1, 5))
    expected = play.decode([12, 5], 7)
    for name in runner._cache.own.names:
        wrong = np.full(runner._cache.own.shape.row_bytes, 0xFF, np.uint8)
        runner._memory.from_host(runner._cache.own.address(name, 2), wrong)
    assert np.array_equal(play.decode([12, 5], 7), expected)
