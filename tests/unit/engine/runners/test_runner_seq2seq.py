"""The ONNX Runtime runner of an encoder-decoder, over a tiny random BART."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from build.quantise import Precision
from engine.runners.onnx_runner import OnnxRunner
from engine.runners.runner import Floats

pytest.importorskip("torch")  # which makes the checkpoint

from tests.models import tiny_seq2seq as tiny
from tests.models.seq2seq_engines import Engine, open_model, write_engine
from tests.unit.engine.runners.seq2seq_loops import Serving, answer_of, make_runner

SLOTS = 5


@pytest.fixture(scope="module", params=[Precision.FP32, Precision.INT8], ids=lambda p: p.value)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("seq2seq")
    checkpoint, model = open_model(tiny.write_folder(folder / "checkpoint", "bart"))
    return write_engine(folder / "engine", checkpoint, model, request.param)


@pytest.fixture
def runner(engine: Engine) -> OnnxRunner:
    return make_runner(engine, SLOTS)


def source(seed: int, length: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(3, 60, length).tolist()
    return found


def played(runner: OnnxRunner, row: int, tokens: list[int]) -> Floats:
    """Decodes the tokens in a row, the rows before it idle; the logits after the last one."""
    for position, token in enumerate(tokens):
        logits: Floats = runner.decode([0] * row + [token], [0] * row + [position])[row].copy()
    return logits


def test_rows_of_any_source_share_a_step_bit_for_bit(engine: Engine, runner: OnnxRunner) -> None:
    lengths = [3, 60, 1, 17, engine.capacity]
    for slot, length in enumerate(lengths):
        runner.encode(slot, source(slot, length))
    together = [runner.decode([4, 5, 6, 7, 8], [step] * SLOTS).copy() for step in range(3)]
    for slot, length in enumerate(lengths):
        alone = make_runner(engine, 1)
        alone.encode(0, source(slot, length))
        for step in range(3):
            assert np.array_equal(alone.decode([4 + slot], [step])[0], together[step][slot])


def test_a_shorter_source_hides_what_was_there_before(engine: Engine, runner: OnnxRunner) -> None:
    runner.encode(0, source(1, 50))
    runner.encode(0, source(2, 4))
    fresh = make_runner(engine, SLOTS)
    fresh.encode(0, source(2, 4))
    assert np.array_equal(played(runner, 0, [5, 6]), played(fresh, 0, [5, 6]))


def test_a_copied_row_has_the_source_and_the_tokens(runner: OnnxRunner) -> None:
    runner.encode(0, source(1, 40))
    runner.encode(3, source(2, 60))
    played(runner, 0, [4, 5, 6])
    runner.copy(0, 3, 3)
    rows = runner.decode([7, 0, 0, 7], [3, 0, 0, 3])
    assert np.array_equal(rows[3], rows[0])


def test_beams_keep_their_source_when_tokens_are_copied(engine: Engine, runner: OnnxRunner) -> None:
    for slot in (0, 1):
        runner.encode(slot, source(1, 40))
    runner.encode(2, source(2, 9))
    played(runner, 0, [4, 5, 6])
    runner.copy(0, 1, 3, cross=False)
    runner.copy(0, 2, 3, start=0, cross=False)
    rows = runner.decode([7, 7, 7], [3, 3, 3])
    assert np.array_equal(rows[1], rows[0])
    assert not np.array_equal(rows[2], rows[0])


def test_a_part_of_the_tokens_is_copied(runner: OnnxRunner) -> None:
    for slot in (0, 1):
        runner.encode(slot, source(1, 40))
    runner.decode([4, 4], [0, 0])
    runner.decode([5, 9], [1, 1])
    runner.decode([6, 9], [2, 2])
    runner.copy(0, 1, 3, start=1, cross=False)
    rows = runner.decode([7, 7], [3, 3])
    assert np.array_equal(rows[1], rows[0])


def test_swapped_rows_change_sources(runner: OnnxRunner) -> None:
    runner.encode(0, source(1, 40))
    runner.encode(1, source(2, 5))
    runner.decode([4, 5], [0, 0])
    expected = runner.decode([6, 7], [1, 1]).copy()
    runner.swap(0, 1, 1)
    assert np.array_equal(runner.decode([7, 6], [1, 1])[::-1], expected)


def answers(engine: Engine, together: bool) -> list[Any]:
    start = 2
    requests: list[dict[str, Any]] = [{}, {"num_beams": 3}, {"no_repeat_ngram_size": 2}, {"num_beams": 2}]
    serving, found = Serving(engine, start, frozenset({2}), SLOTS), []
    for seed in range(12):
        asked = source(seed, 1 + 5 * seed), {**requests[seed % 4], "max_tokens": 4 + seed}
        if together:
            found.append(serving.ask(asked[0], **asked[1]))
        else:
            serving = Serving(engine, start, frozenset({2}), SLOTS)
            found.append(serving.ask(asked[0], **asked[1]))
            serving.run()
    serving.run()
    return [answer_of(client) for client in found]


def test_invariant_4_answers_do_not_depend_on_the_batch(engine: Engine) -> None:
    """More requests than slots, greedy and searched, so that rows come and go and gaps are closed."""
    assert answers(engine, together=True) == answers(engine, together=False)
