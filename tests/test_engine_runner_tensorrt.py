"""The TensorRT runner on a graph of its dialect, run by ONNX Runtime: positions, masks, caches, profiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from build.architecture import describe
from build.dialects.scored import Scored
from build.quantise import Precision
from build.sources.folder import open_folder
from engine.executor import Profile
from engine.manifest import ModelShape
from engine.masks import fill_causal, fill_source
from engine.memory import HostMemory
from engine.runner import Floats, Runner
from engine.runner_onnx import OnnxRunner, open_session
from engine.runner_tensorrt import TensorRtRunner
from tests import tiny
from tests.engines import Engine, write_engine
from tests.onnx_executor import OnnxExecutor
from tests.tensorrt_toy import write_toy

SLOTS, CAPACITY, CHUNK = 4, 48, 8
VOCAB = len(tiny.VOCAB)
SHAPE = ModelShape(layers=2, kv_heads=2, head_dim=16, vocab_size=VOCAB, max_positions=256)
PROFILES = {Profile.DECODE: (SLOTS, 1), Profile.PREFILL: (1, CHUNK)}
# The window is shorter than a chunk and than most prompts.
FAMILIES = {"llama": {}, "mistral": {"sliding_window": 6}}


@pytest.fixture(scope="module", params=FAMILIES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The same weights in both dialects."""
    folder, changes = tmp_path_factory.mktemp("tensorrt"), FAMILIES[request.param]
    checkpoint = open_folder(tiny.write_folder(folder / "checkpoint", request.param, **changes))
    config = tiny.config(request.param, **changes)
    write_toy(folder / "toy.onnx", config, tiny.tensors(config), CAPACITY)
    return write_engine(folder / "engine", checkpoint, describe(checkpoint.config), Precision.FP32)


def executor(engine: Engine) -> OnnxExecutor:
    return OnnxExecutor(engine.folder.parent / "toy.onnx", PROFILES)


def runner_of(found: OnnxExecutor) -> TensorRtRunner:
    return TensorRtRunner(found, None, SHAPE, HostMemory(), SLOTS, CAPACITY, CHUNK)


def reference(engine: Engine) -> OnnxRunner:
    path: Path = engine.folder / f"{Scored.LAST.value}.onnx"
    return OnnxRunner(open_session(path, threads=1), SHAPE, SLOTS, CAPACITY, CHUNK)


def prompt(seed: int, length: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(3, VOCAB, length).tolist()
    return found


def fill(runner: Runner, slot: int, tokens: list[int]) -> Floats:
    """Prefill in chunks; the logits after each."""
    starts = range(0, len(tokens), CHUNK)
    return np.concatenate([runner.prefill(slot, s, tokens[s : s + CHUNK]).copy() for s in starts])


def close(found: Floats, wanted: Floats) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


lengths = st.lists(st.integers(1, CAPACITY - 4), min_size=SLOTS, max_size=SLOTS)
slots = st.integers(0, SLOTS - 1)


@settings(max_examples=15)
@given(lengths, slots, slots, st.data())
def test_it_is_the_runner_of_the_cpu(
    engine: Engine, rows: list[int], a: int, b: int, data: st.DataObject
) -> None:
    both: list[Runner] = [runner_of(executor(engine)), reference(engine)]
    for slot, length in enumerate(rows):
        close(*(fill(runner, slot, prompt(slot, length)) for runner in both))
    copied = data.draw(st.integers(0, rows[a]))
    start = data.draw(st.integers(0, copied))
    for runner in both:
        if a != b:
            runner.copy(a, b, copied, start=start)
        runner.swap(a, b, max(rows))
    count = data.draw(st.integers(1, SLOTS))
    for step in range(3):
        positions = [length + step for length in rows[:count]]
        close(*(runner.decode(prompt(step, count), positions).copy() for runner in both))


def test_an_idle_row_harms_nobody(engine: Engine) -> None:
    """It writes one position behind its slot's tokens, which the next chunk of its prompt overwrites."""
    runner = runner_of(executor(engine))
    tokens = prompt(1, 2 * CHUNK)
    fill(runner, 1, prompt(2, 6))
    runner.prefill(0, 0, tokens[:CHUNK])
    runner.decode([0, 5], [CHUNK, 6])
    found = runner.prefill(0, CHUNK, tokens[CHUNK:]).copy()
    assert np.array_equal(found, fill(runner_of(executor(engine)), 0, tokens)[1:])


def test_a_decode_step_is_prepared_once_for_each_count_of_rows(engine: Engine) -> None:
    found = executor(engine)
    runner = runner_of(found)
    for count in (1, 3, 1, 3, 3):
        runner.decode([5] * count, [0] * count)
    runner.prefill(0, 0, [5, 6])
    assert found.prepared == [(Profile.DECODE, True), (Profile.DECODE, True), (Profile.PREFILL, False)]


def test_logits_may_be_written_to(engine: Engine) -> None:
    runner = runner_of(executor(engine))
    expected = runner.prefill(0, 0, [5, 6, 7]).copy()
    runner.prefill(0, 0, [5, 6, 7])[:] = np.nan
    assert np.array_equal(runner.prefill(0, 0, [5, 6, 7]), expected)


@given(
    st.lists(st.lists(st.integers(0, 11), min_size=3, max_size=3), min_size=1, max_size=3),
    st.none() | st.integers(1, 14),
)
def test_a_query_looks_at_no_key_after_it_and_at_none_before_its_window(
    positions: list[list[int]], window: int | None
) -> None:
    queries = np.array(positions)
    mask: NDArray[np.bool_] = np.ones((len(positions), 1, 3, 12), np.bool_)
    fill_causal(mask, queries, window)
    for row, query, key in np.ndindex(len(positions), 3, 12):
        distance = queries[row, query] - key
        assert mask[row, 0, query, key] == (0 <= distance < (window or 12))
    assert mask.any(axis=-1).all()


def test_a_row_looks_at_its_source_and_at_one_key_where_there_is_none() -> None:
    mask: NDArray[np.bool_] = np.zeros((3, 1, 1, 4), np.bool_)
    fill_source(mask, np.array([2, 0, 4], np.int32))
    assert mask[:, 0, 0].tolist() == [[True, True, False, False], [True, False, False, False], [True] * 4]
