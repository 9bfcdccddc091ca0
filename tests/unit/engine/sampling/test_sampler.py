from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.request import Sampling
from engine.core.tokens import Vocabulary
from engine.sampling.sampler import Floats, TokenChooser, choose
from tests.unit.engine.sampling.draws import EOS, VOCAB, choose_all, chooser, logits_of, seeds, tokens_at


@given(seeds, st.integers(1, 8))
def test_greedy_is_the_arg_max(seed: int, rows: int) -> None:
    logits = logits_of(seed, rows)
    expected = logits.argmax(axis=1).tolist()
    assert [c.token for c in choose_all(logits.copy(), [chooser() for _ in range(rows)])] == expected
    same = [chooser(top_k=1, temperature=5.0, seed=3) for _ in range(rows)]
    assert [c.token for c in choose_all(logits.copy(), same)] == expected


def test_of_equal_logits_greedy_takes_the_first() -> None:
    assert choose_all(np.zeros((1, VOCAB), np.float32), [chooser()])[0].token == 0


def test_repetition_penalty_covers_prompt_and_answer() -> None:
    one = chooser(prompt=(3,), repetition_penalty=2.0)
    one.note(4)
    row = np.array([1.0, 1, 1, 1, -1] + [0] * (VOCAB - 5), np.float32)
    one.edit(row)
    assert row[:5].tolist() == [1, 1, 1, 0.5, -2]


def test_frequency_and_presence_penalties_count_the_answer_alone() -> None:
    one = chooser(prompt=(3,), frequency_penalty=0.5, presence_penalty=1.0)
    for token in (4, 4, 5):
        one.note(token)
    row = np.zeros(VOCAB, np.float32)
    one.edit(row)
    assert row[:6].tolist() == [0, 0, 0, 0, -2, -1.5]
    assert row.dtype == np.float32


def test_logit_bias_is_added_and_can_decide() -> None:
    logits = logits_of(1)
    one = chooser(logit_bias=((11, 100.0), (12, 1.5)))
    row = logits[0].copy()
    one.edit(row)
    assert row[12] == logits[0, 12] + np.float32(1.5)
    assert choose_all(logits, [one])[0].token == 11


def test_no_eos_before_min_tokens() -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, [7, 9, 20]] = [9, 8, 5]
    one = chooser(min_tokens=2)
    assert [choose_all(logits.copy(), [one])[0].token for _ in range(3)] == [20, 20, 7]


def test_no_eos_before_min_tokens_when_sampling() -> None:
    logits = np.full((1, VOCAB), -9, np.float32)
    logits[0, [7, 9]] = 9
    one = chooser(min_tokens=20, max_tokens=30, temperature=1.0, seed=1)
    assert not {choose_all(logits.copy(), [one])[0].token for _ in range(20)} & EOS
    assert choose_all(logits.copy(), [one])[0].token in EOS


def test_an_eos_past_the_vocabulary_is_no_trouble() -> None:
    one = TokenChooser(Sampling(max_tokens=2, min_tokens=1), (), 2, Vocabulary(10, frozenset({99})))
    assert choose_all(np.zeros((1, 10), np.float32), [one])[0].token == 0


def draws(count: int, seed: int | None, logits: Floats, **sampling: Any) -> list[int]:
    one = chooser(seed=seed, **{"temperature": 1.0, **sampling})
    return [choose_all(logits.copy(), [one])[0].token for _ in range(count)]


def test_a_seed_repeats_and_another_does_not() -> None:
    logits = logits_of(3)
    assert draws(30, 5, logits) == draws(30, 5, logits)
    assert draws(30, 5, logits) != draws(30, 6, logits)
    assert draws(30, 2**64 - 1, logits) == draws(30, 2**64 - 1, logits)


def test_without_a_seed_answers_differ() -> None:
    logits = logits_of(3)
    assert draws(30, None, logits) != draws(30, None, logits)


mixes = st.sampled_from([
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 10},
    {"temperature": 30.0, "top_p": 0.999},
    {"repetition_penalty": 1.3},
    {"temperature": 1.0, "frequency_penalty": 0.5, "num_logprobs": 3},
])  # fmt: skip


@given(st.lists(st.tuples(mixes, seeds), min_size=1, max_size=6), st.integers(0, 5), seeds)
def test_an_answer_does_not_depend_on_its_batch(
    requests: list[tuple[dict[str, Any], int]], which: int, seed: int
) -> None:
    """The same row alone and among others, for three steps, with log-probabilities and all."""
    which %= len(requests)
    together = [chooser(seed=s, **mix) for mix, s in requests]
    alone = chooser(seed=requests[which][1], **requests[which][0])
    for step in range(3):
        logits = logits_of(seed + step, len(requests), vocab=VOCAB)
        single = choose_all(logits[which : which + 1].copy(), [alone])
        assert choose_all(logits, together)[which] == single[0]


def test_drawn_tokens_follow_their_probabilities() -> None:
    """Pearson's chi-square of 4000 draws with one seed, against its 99.9 % point for 9 degrees of freedom."""
    logits = logits_of(11, vocab=10, scale=1)
    wanted = np.exp(logits[0].astype(np.float64))
    wanted *= 4000 / wanted.sum()
    one = chooser(vocab=10, temperature=1.0, seed=2)
    found = Counter(choose_all(logits.copy(), [one])[0].token for _ in range(4000))
    chi_square = sum((found[token] - wanted[token]) ** 2 / wanted[token] for token in range(10))
    assert chi_square < 27.9


@given(seeds, st.integers(0, 20))
def test_logprobs_are_the_models_own_whatever_is_sampled(seed: int, count: int) -> None:
    logits = logits_of(seed)
    row = logits[0].astype(np.float64)
    wanted = row - row.max() - np.log(np.exp(row - row.max()).sum())
    one = chooser(num_logprobs=count, temperature=2.0, seed=1, logit_bias=((5, 100.0),))
    choice = choose_all(logits, [one])[0]
    assert choice.token == 5
    assert choice.logprob == pytest.approx(wanted[5])
    best = np.argsort(-wanted, kind="stable")[:count].tolist()
    assert [a.token for a in choice.top] == best
    assert [a.logprob for a in choice.top] == pytest.approx(wanted[best])


def test_more_alternatives_than_tokens_are_all_tokens() -> None:
    choice = choose_all(np.zeros((1, 10), np.float32), [chooser(vocab=10, num_logprobs=20)])[0]
    assert [a.token for a in choice.top] == list(range(10))
    assert choice.logprob == pytest.approx(-math.log(10))


def test_without_num_logprobs_nothing_is_reported() -> None:
    assert choose_all(logits_of(1), [chooser(temperature=1.0)])[0].top == ()
    assert choose_all(logits_of(1), [chooser()])[0].logprob is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 1}, {"num_logprobs": 2}])
def test_a_row_that_is_not_finite_has_no_token_and_harms_no_other(
    value: float, sampling: dict[str, Any]
) -> None:
    logits = logits_of(1, 4)
    expected = choose_all(logits.copy(), [chooser(**sampling) for _ in range(4)])
    logits[[1, 2]] = value
    assert choose(logits, [chooser(**sampling) for _ in range(4)]) == [expected[0], None, None, expected[3]]


def test_where_every_token_is_forbidden_the_first_one_is_taken() -> None:
    every = tuple(range(10))
    for temperature in (0.0, 1.0):
        one = chooser(vocab=10, suppress_tokens=every, temperature=temperature)
        assert choose_all(logits_of(1, vocab=10), [one])[0].token == 0


def test_a_token_that_cannot_occur_never_does() -> None:
    logits = np.full((1, VOCAB), -np.inf, np.float32)
    logits[0, 42] = 1
    assert draws(5, 1, logits, top_p=0.9) == [42] * 5
    assert draws(5, 1, logits) == [42] * 5


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-8, 1e-3, 100])
def test_every_allowed_temperature_gives_a_token_of_the_row(temperature: float) -> None:
    logits = logits_of(4)
    peak = int(logits.argmax())
    for filters in ({}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.5}):
        token = tokens_at(logits[0], [0.999], temperature=temperature, **filters)
        assert temperature > 1 or token == [peak]


@given(
    seeds,
    st.floats(0, 100),
    st.floats(0, 1, exclude_min=True),
    st.floats(0, 1),
    st.integers(0, 2**31 - 1),
    st.floats(0.001, 10),
)
@example(1, 1.0, 0.5, 0.0, 0, 0.001)
@example(1, 5e-324, 0.5, 0.0, 0, 1.0)
@example(1, 1.0, 5e-324, 1.0, 0, 1.0)
def test_every_allowed_parameter_gives_a_token(
    seed: int, temperature: float, top_p: float, min_p: float, top_k: int, penalty: float
) -> None:
    """What the limits let through can never fail a step, which would hurt the others in it."""
    one = chooser(
        prompt=(1, 2, 3), temperature=temperature, top_p=top_p, min_p=min_p, top_k=top_k,
        repetition_penalty=penalty, seed=seed, num_logprobs=2,
    )  # fmt: skip
    for _ in range(3):
        assert 0 <= choose_all(logits_of(seed), [one])[0].token < VOCAB


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("sampling", [{}, {"top_k": 3}, {"top_p": 0.9}])
def test_the_ends_of_the_random_numbers_draw_possible_tokens(
    uniform: float, sampling: dict[str, float]
) -> None:
    logits = np.full(VOCAB, -np.inf, np.float32)
    logits[[10, 20, 30]] = 1
    (token,) = tokens_at(logits, [uniform], temperature=1.0, **sampling)
    assert token in {10, 20, 30}
