"""Scores of windows on both runners: the same as of each window alone, and what they share computed once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scoring
from engine.core.errors import InvalidArgument
from engine.runners.kernels import levels_here
from engine.runners.runner import Runner, Verifier
from inprocess import TimedVerifier
from tests.models.kernel_engines import (
    CAPACITY,
    SLOTS,
    VOCAB,
    kernel_runner,
    onnx_runner,
    write_kernel_engine,
)

# Few tokens, so that windows begin alike, repeat and contain one another.
windows = st.lists(
    st.lists(st.integers(3, 5), min_size=1, max_size=9).flatmap(
        lambda tokens: st.tuples(st.just(tokens), st.integers(1, len(tokens)))
    ),
    max_size=14,
)


@pytest.fixture(scope="module", params=["kernels", "onnx"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    if request.param == "kernels" and not levels_here():
        pytest.skip("no kernels have been compiled")
    folder = write_kernel_engine(tmp_path_factory.mktemp("scoring"), "llama")
    return kernel_runner(folder) if request.param == "kernels" else onnx_runner(folder)


def alone(runner: Runner, tokens: list[int], start: int) -> list[float]:
    """A token at a time in row 0, by the log-sum of numpy."""
    steps = [runner.decode([token], [at])[0].astype(np.float64) for at, token in enumerate(tokens[:-1])]
    losses = [np.logaddexp.reduce(step) - step[token] for step, token in zip(steps, tokens[1:], strict=True)]
    return [float(loss) for loss in losses[start - 1 :]]


@settings(max_examples=30)
@given(windows, st.integers(1, SLOTS))
def test_a_window_scores_the_same_in_any_company(
    runner: Runner, found: list[tuple[list[int], int]], rows: int
) -> None:
    tokens, starts = [one for one, _ in found], [start for _, start in found]
    together = scoring.score(runner, rows, tokens, starts)
    for losses, one, start in zip(together, tokens, starts, strict=True):
        assert losses == scoring.score(runner, rows, [one], [start])[0]
        assert losses == pytest.approx(alone(runner, one, start), abs=1e-5)


@settings(max_examples=20)
@given(windows)
def test_calls_of_few_tokens_give_the_same(runner: Runner, found: list[tuple[list[int], int]]) -> None:
    tokens, starts = [one for one, _ in found], [start for _, start in found]
    expected = scoring.score(runner, SLOTS, tokens, starts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_TOKENS", 3)
        assert scoring.score(runner, SLOTS, tokens, starts) == expected


@given(windows, st.integers(1, 8))
def test_every_window_has_one_job_and_rows_are_in_order(
    found: list[tuple[list[int], int]], rows: int
) -> None:
    tokens, starts = [one for one, _ in found], [start for _, start in found]
    lanes = scoring.plan(tokens, starts, rows)
    assert sorted(job.window for lane in lanes for job in lane) == list(range(len(found)))
    assert len(lanes) <= rows
    costs = [sum(scoring.computed(job, tokens) for job in lane) for lane in lanes]
    assert costs == sorted(costs, reverse=True)


def test_what_windows_share_is_computed_once() -> None:
    context = list(range(40))
    tokens = [[*context, 50, 51], [*context, 60], [*context, 50, 51], [*context, 50, 52]]
    (lane,) = scoring.plan(tokens, [40] * 4, rows=1)
    # The context and 50; nothing of the same window; 50 again, since what follows it is another; its end.
    assert [scoring.computed(job, tokens) for job in lane] == [41, 0, 1, 1]


def test_a_verifier_is_called_with_many_tokens(runner: Runner) -> None:
    if not isinstance(runner, Verifier):
        pytest.skip("this runner decodes")
    timed = TimedVerifier(runner)
    many = [[3 + number % 7, 4, 5 + number, 6, 7, 8] for number in range(40)]
    scoring.score(timed, SLOTS, many, [1] * len(many))
    assert len(timed.calls) < len(many)


@pytest.mark.parametrize(
    ("tokens", "starts", "message"),
    [
        ([[1, 2]], [], "starts: 0, must be one for each of 1 windows"),
        ([[1, 2], [1]], [1, 2], r"starts\[1\]: 2, must be in \[1, 1\]"),
        ([[1, 2]], [0], r"starts\[0\]: 0"),
        ([[1] * (CAPACITY + 1)], [1], rf"windows\[0\]: {CAPACITY + 1} tokens, must be at most max_context"),
        ([[1, VOCAB]], [1], r"windows\[0\]: a token that the model lacks"),
        ([[1, -1]], [1], r"windows\[0\]: a token that the model lacks"),
    ],
)
def test_a_window_that_cannot_be_scored_is_named(
    tokens: list[list[int]], starts: list[int], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        scoring.check(tokens, starts, VOCAB, CAPACITY)
