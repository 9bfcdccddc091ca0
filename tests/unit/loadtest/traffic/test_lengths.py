"""Drawn lengths hit the quantiles that were asked for, and stay within their bounds."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import TrafficError
from loadtest.traffic.arrivals import INPUT, OUTPUT
from loadtest.traffic.lengths import Constant, Lengths, Lognormal, Quantiles, Uniform, lengths_of

SAMPLES = 20_000


def _read(content: dict[str, Any]) -> Lengths:
    return lengths_of(content, "mix[0].prompt_tokens")


def _samples(lengths: Lengths, number: int = SAMPLES) -> list[int]:
    random = Random(7)
    return sorted(lengths.sample(random) for _ in range(number))


_uniforms = st.tuples(st.integers(1, 3000), st.integers(0, 3000)).map(
    lambda pair: {"uniform": [pair[0], sum(pair)]}
)
_lognormals = st.tuples(st.integers(1, 3000), st.floats(1, 8), st.integers(1, 50), st.integers(50, 9000)).map(
    lambda drawn: {
        "lognormal": {"median": drawn[0], "p90": drawn[0] * drawn[1], "min": drawn[2], "max": drawn[3]}
    }
)
_quantiles = st.tuples(
    st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1, max_size=5, unique=True),
    st.lists(st.floats(1, 9000), min_size=5, max_size=5),
    st.integers(1, 50),
    st.integers(50, 9000),
).map(
    lambda drawn: {
        "quantiles": {repr(p): n for p, n in zip(sorted(drawn[0]), sorted(drawn[1]), strict=False)},
        "min": drawn[2],
        "max": drawn[3],
    }
)
_choices = st.lists(st.tuples(st.integers(1, 5000), st.floats(0.1, 9)), min_size=1, max_size=5).map(
    lambda pairs: {"choices": [n for n, _ in pairs], "weights": [w for _, w in pairs]}
)
_constants = st.integers(1, 5000).map(lambda n: {"constant": n})
any_lengths = _uniforms | _lognormals | _quantiles | _choices | _constants


@given(content=any_lengths)
def test_what_is_read_and_written_is_read_the_same(content: dict[str, Any]) -> None:
    lengths = _read(content)
    assert _read(lengths.as_table()) == lengths


@given(content=any_lengths, seed=st.integers())
def test_every_draw_is_within_its_bounds_and_the_same_for_a_seed(content: dict[str, Any], seed: int) -> None:
    lengths = _read(content)
    drawn = lengths.sample(Random(seed))
    assert drawn == lengths.sample(Random(seed))
    match lengths:
        case Constant(tokens):
            assert drawn == tokens
        case Uniform(least, most) | Lognormal(min=least, max=most) | Quantiles(min=least, max=most):
            assert least <= drawn <= most
        case _:
            assert drawn in lengths.tokens


def test_a_lognormal_hits_its_median_and_its_90th_percentile() -> None:
    drawn = _samples(Lognormal(160, 480))
    assert drawn[SAMPLES // 2] == pytest.approx(160, rel=0.04)
    assert drawn[SAMPLES * 9 // 10] == pytest.approx(480, rel=0.04)


@pytest.mark.parametrize("published", [INPUT, OUTPUT])
def test_the_published_quantiles_are_hit(published: Quantiles) -> None:
    drawn = _samples(published)
    for probability, tokens in published.points:
        assert drawn[int(SAMPLES * probability)] == pytest.approx(tokens, rel=0.04)


def test_the_published_quantiles_are_those_of_the_trace() -> None:
    assert [tokens for _, tokens in INPUT.points] == [207, 1020, 2735, 4142]
    assert [tokens for _, tokens in OUTPUT.points] == [54, 129, 424, 601]


def test_between_two_quantiles_the_logarithm_is_linear() -> None:
    lengths = Quantiles(((0.2, 100), (0.6, 1600)))
    assert [lengths.at(p) for p in (0.2, 0.4, 0.6, 0.8)] == pytest.approx([100, 400, 1600, 6400])


@given(content=_quantiles, pair=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_quantiles_never_fall(content: dict[str, Any], pair: tuple[float, float]) -> None:
    lengths = _read(content)
    assert isinstance(lengths, Quantiles)
    low, high = sorted(pair)
    assert lengths.at(low) <= lengths.at(high) * (1 + 1e-9)


def test_choices_come_as_often_as_their_weights() -> None:
    drawn = _samples(_read({"choices": [16, 64], "weights": [3, 1]}))
    assert drawn.count(16) / SAMPLES == pytest.approx(0.75, abs=0.02)


def test_a_uniform_draws_both_of_its_ends() -> None:
    assert set(_samples(Uniform(3, 6), 500)) == {3, 4, 5, 6}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "prompt_tokens: nothing, must have one of constant, uniform"),
        ({"constant": 3, "uniform": [1, 2]}, "must have one of"),
        ({"constant": 0}, r"constant: 0, must be a whole number from 1 to 1,000,000"),
        ({"constant": 1.5}, "constant: 1.5, must be a whole number"),
        ({"constant": True}, "constant: True, must be a whole number"),
        ({"constant": 3, "max": 4}, "max: is not known here; known are choices, constant"),
        ({"uniform": 3}, "uniform: 3, must be a list"),
        ({"uniform": [3]}, "must be two whole numbers"),
        ({"uniform": [9, 3]}, "must have the smaller number first"),
        ({"uniform": [0, 3]}, "uniform: 0, must be a whole number from 1"),
        ({"lognormal": {"median": 10}}, r"lognormal.p90: is missing"),
        ({"lognormal": {"median": 10, "p90": 5}}, "p90: 5, must be of at least 10"),
        (
            {"lognormal": {"median": 10, "p90": 50, "mx": 3}},
            r"lognormal.mx: is not known here; known are max",
        ),
        (
            {"lognormal": {"median": 10, "p90": 50, "min": 9, "max": 3}},
            "max: 3, must be a whole number from 9",
        ),
        ({"quantiles": {}}, "must have at least one point"),
        ({"quantiles": {"half": 3}}, "'half', must be a probability from 0 to 1"),
        ({"quantiles": {"1.5": 3}}, "'1.5', must be a probability"),
        ({"quantiles": {"0.5": 3, "0.50": 4}}, "0.5 and 0.5, must be 1e-06 apart"),
        ({"quantiles": {"0.5": 30, "0.9": 4}}, '"0.9" = 4, must be at least the 30 of "0.5"'),
        ({"choices": []}, "must be a list that is not empty"),
        ({"choices": ["x"]}, "choices: 'x', must be a whole number"),
        ({"choices": [1, 2], "weights": [1]}, "must have 2 numbers"),
        ({"choices": [1], "weights": [-1]}, "weights: -1, must be of at least 0"),
        ({"choices": [1], "weights": [0]}, "must not all be 0"),
    ],
)
def test_a_wrong_distribution_is_refused_by_key_value_and_limit(
    content: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrafficError, match=message):
        _read(content)
