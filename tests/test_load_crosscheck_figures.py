"""The cross-check's arithmetic: figures of a run, and when two tools agree."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.crosscheck.agreement import agreement
from loadtest.crosscheck.figures import Timing, figures_of
from loadtest.errors import BenchError

VALUES = st.lists(st.floats(0.001, 1e4), min_size=1, max_size=9)
TIMINGS = st.lists(
    st.builds(
        lambda sent_s, ttft_s, decode_s, tokens: Timing(sent_s, ttft_s, sent_s + ttft_s + decode_s, tokens),
        st.floats(0, 100),
        st.floats(0.01, 10),
        st.floats(0.01, 50),
        st.integers(2, 500),
    ),
    min_size=1,
    max_size=20,
)


def test_figures_by_hand() -> None:
    timings = [Timing(10.0, 0.2, 11.0, 5), Timing(10.5, 0.4, 12.9, 11), Timing(11.0, 0.3, 12.3, 3)]
    found = figures_of("aiperf", timings)
    assert found.ttft_p50_s == 0.3
    assert found.e2e_p50_s == pytest.approx(1.3)
    assert found.itl_mean_s == pytest.approx((0.8 / 4 + 2.0 / 10 + 1.0 / 2) / 3)
    assert found.tokens_per_s == pytest.approx(19 / 2.9)


@given(TIMINGS, st.floats(0.1, 10))
def test_a_slower_clock_scales_every_figure(timings: list[Timing], factor: float) -> None:
    slower = [Timing(t.sent_s * factor, t.ttft_s * factor, t.end_s * factor, t.tokens) for t in timings]
    one, other = figures_of("x", timings), figures_of("x", slower)
    scales = [factor, factor, factor, 1 / factor]
    assert astuple(other) == pytest.approx([a * k for a, k in zip(astuple(one), scales, strict=True)])


@given(TIMINGS)
def test_figures_do_not_depend_on_the_order_of_requests(timings: list[Timing]) -> None:
    assert astuple(figures_of("x", timings)) == pytest.approx(astuple(figures_of("x", timings[::-1])))


def test_a_run_without_answers_is_refused() -> None:
    with pytest.raises(BenchError, match="aiperf: no request was answered"):
        figures_of("aiperf", [])


def test_answers_of_one_token_are_refused() -> None:
    with pytest.raises(BenchError, match="1 answers of less than 2 tokens"):
        figures_of("aiperf", [Timing(0, 1, 2, 5), Timing(0, 1, 2, 1)])


@given(VALUES)
def test_a_tool_agrees_with_itself(values: list[float]) -> None:
    assert agreement("ttft_p50_s", values, values).agrees


@given(VALUES.flatmap(lambda a: st.tuples(st.just(a), st.permutations(a))))
def test_agreement_does_not_depend_on_the_order_of_repeats(pair: tuple[list[float], list[float]]) -> None:
    found = agreement("ttft_p50_s", *pair)
    assert found.agrees
    assert found.difference == 0


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=1, max_size=9))
def test_agreement_is_mutual(repeats: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*repeats, strict=True)
    one, other = agreement("e2e_p50_s", ours, theirs), agreement("e2e_p50_s", theirs, ours)
    assert one.agrees == other.agrees
    assert one.difference == -other.difference


@given(VALUES, st.floats(1.01, 100))
def test_a_shift_by_more_than_the_spread_is_a_difference(values: list[float], factor: float) -> None:
    spread = max(values) - min(values) or 1.0
    shifted = [value + factor * spread for value in values]
    assert not agreement("e2e_p50_s", shifted, values).agrees


@given(VALUES)
def test_without_a_spread_only_equal_medians_agree(values: list[float]) -> None:
    value = values[0]
    assert not agreement("e2e_p50_s", [value] * 3, [value * 1.1] * 3).agrees
