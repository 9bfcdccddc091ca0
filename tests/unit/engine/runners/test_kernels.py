"""The kernels against the graph that they replace. A token's logits depend on its past alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from build.architecture import describe
from build.quantise import Precision
from engine.runners.kernel_runner import KernelRunner
from engine.runners.runner import Floats, Run, Runner
from tests.models import tiny
from tests.models.engines import write_engine
from tests.models.kernel_engines import (
    CAPACITY,
    SLOTS,
    VOCAB,
    kernel_runner,
    onnx_runner,
    write_kernel_engine,
)

# Sizes that fill no vector of 16 and no tile of 32, three query heads to a kv head.
ODD = {
    "hidden_size": 84,
    "intermediate_size": 100,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
ENGINES = [("llama", {}), ("llama", ODD), ("mistral", {}), ("qwen2", {}), ("qwen3", {})]


def prompt(seed: int, length: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(3, VOCAB, length).tolist()
    return found


def fill(runner: Runner, slot: int, tokens: list[int], chunk: int = 16) -> Floats:
    for start in range(0, len(tokens), chunk):
        logits = runner.prefill(slot, start, tokens[start : start + chunk])
    return logits.copy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kernel_engine(tmp_path_factory.mktemp("kernels"), "llama", **ODD)


@pytest.fixture(scope="module")
def runner(folder: Path) -> KernelRunner:
    return kernel_runner(folder)


@pytest.mark.parametrize(("family", "changes"), ENGINES, ids=lambda value: value or "")
def test_kernels_are_as_near_to_the_model_as_the_graph_is(
    family: str, changes: dict[str, int], tmp_path: Path
) -> None:
    """Both round to 8 bits, and a value between two levels may go either way: so no bit for bit here."""
    folder = write_kernel_engine(tmp_path, family, **changes)
    checkpoint = tiny.opened(tmp_path / "checkpoint")
    exact = write_engine(tmp_path / "exact", checkpoint, describe(checkpoint.config), Precision.FP32)
    kernels, graph = kernel_runner(folder), onnx_runner(folder)
    prompts = [prompt(seed, length) for seed, length in enumerate((1, 2, 15, 16, 17, 40, CAPACITY))]
    found = np.array([fill(kernels, 2, tokens)[0] for tokens in prompts])
    served = np.array([fill(graph, 2, tokens)[0] for tokens in prompts])
    model = np.array([exact.session().prefill(0, np.array(tokens))[-1] for tokens in prompts])
    lost = _rms(served - model)
    assert 0 < _rms(found - model) < 1.25 * lost
    assert _rms(found - served) < lost


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_a_step_of_decode_follows_a_prefill(runner: KernelRunner) -> None:
    tokens = prompt(1, 30)
    whole = fill(runner, 0, tokens, chunk=30)
    fill(runner, 1, tokens[:29])
    assert np.array_equal(runner.decode([0, tokens[29]], [79, 29])[1], whole[0])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, SLOTS - 1), st.integers(0, 5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunks_of_any_size_give_the_same_bits(
    runner: KernelRunner, sizes: list[int], slot: int, seed: int
) -> None:
    tokens = prompt(seed, min(CAPACITY, sum(sizes)))
    expected = fill(runner, (slot + 1) % SLOTS, tokens, chunk=len(tokens))
    start = 0
    for size in sizes:
        if start < len(tokens):
            logits = runner.prefill(slot, start, tokens[start : start + size])
        start += size
    assert np.array_equal(logits, expected)


@given(st.lists(st.integers(1, CAPACITY - 1), min_size=1, max_size=SLOTS), st.integers(0, 5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_does_not_depend_on_its_batch(runner: KernelRunner, lengths: list[int], seed: int) -> None:
    for slot, length in enumerate(lengths):
        fill(runner, slot, prompt(seed + slot, length), chunk=32)
    chosen = prompt(seed, len(lengths))
    together = runner.decode(chosen, lengths).copy()
    for slot, length in enumerate(lengths):
        alone = fill(runner, SLOTS - 1, [*prompt(seed + slot, length), chosen[slot]], chunk=64)
        assert np.array_equal(alone[0], together[slot])


@given(st.lists(st.integers(1, 12), min_size=1, max_size=SLOTS - 1), st.integers(1, 40), st.integers(0, 5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_token_of_runs_of_several_rows_gives_what_it_gives_alone(
    runner: KernelRunner, sizes: list[int], before: int, seed: int
) -> None:
    known = [prompt(seed + row, before + size) for row, size in enumerate(sizes)]
    for row, tokens in enumerate(known):
        fill(runner, row, tokens[:before], chunk=32)
    runs = [Run(row, before, tuple(tokens[before:])) for row, tokens in enumerate(known)]
    together = iter(runner.verify(runs).copy())
    for tokens in known:
        for end in range(before + 1, len(tokens) + 1):
            assert np.array_equal(next(together), fill(runner, SLOTS - 1, tokens[:end], chunk=64)[0])


def test_rows_and_a_chunk_in_one_call_give_what_they_give_apart(runner: KernelRunner) -> None:
    """The chunk's logits are those after its last token alone."""
    rows, chunk = [prompt(seed, 20 + seed) for seed in range(3)], prompt(9, 40)
    expected = [fill(runner, SLOTS - 1, tokens)[0] for tokens in (*rows, chunk)]
    for row, tokens in enumerate(rows):
        fill(runner, row, tokens[:-1])
    fill(runner, 4, chunk[:17])
    runs = [Run(row, len(tokens) - 1, (tokens[-1],)) for row, tokens in enumerate(rows)]
    found = runner.verify([*runs, Run(4, 17, tuple(chunk[17:]), wanted=1)])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_any_number_of_threads_gives_the_same_bits(folder: Path, runner: KernelRunner, threads: int) -> None:
    other = kernel_runner(folder, threads)
    for seed in range(20):
        tokens = prompt(seed, 1 + 7 * seed % CAPACITY)
        assert np.array_equal(fill(other, 0, tokens), fill(runner, 0, tokens))


def test_a_copied_row_is_the_row(runner: KernelRunner) -> None:
    tokens = prompt(1, 22)
    fill(runner, 0, tokens)
    runner.copy(0, 4, 20)
    expected = runner.prefill(0, 20, tokens[20:]).copy()
    assert np.array_equal(runner.prefill(4, 20, tokens[20:]), expected)


def test_a_part_of_a_row_is_copied(runner: KernelRunner) -> None:
    tokens = prompt(2, 22)
    expected = fill(runner, 0, tokens)
    fill(runner, 3, [*tokens[:10], *prompt(3, 12)])
    runner.copy(0, 3, 21, start=10)
    assert np.array_equal(runner.prefill(3, 21, tokens[21:]), expected)


def test_swapped_rows_change_places(runner: KernelRunner) -> None:
    a, b = prompt(1, 12), prompt(2, 5)
    fill(runner, 0, a)
    fill(runner, 1, b)
    expected = runner.decode([3, 4], [12, 5]).copy()
    fill(runner, 0, a)
    fill(runner, 1, b)
    runner.swap(0, 1, 12)
    assert np.array_equal(runner.decode([4, 3], [5, 12])[::-1], expected)


def test_what_stands_behind_a_slots_tokens_is_not_seen(folder: Path, runner: KernelRunner) -> None:
    tokens = prompt(5, 20)
    expected = fill(kernel_runner(folder), 2, tokens)
    fill(runner, 2, prompt(6, CAPACITY))
    assert np.array_equal(fill(runner, 2, tokens), expected)


def test_logits_may_be_written_to(runner: KernelRunner) -> None:
    tokens = prompt(1, 8)
    expected = fill(runner, 0, tokens)
    runner.prefill(0, 0, tokens)[:] = np.nan
    assert np.array_equal(fill(runner, 0, tokens), expected)
