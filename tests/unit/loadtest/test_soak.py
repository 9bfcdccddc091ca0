"""What a soak test concludes from memory and records, and the slope of memory over time: Theil's estimator
and Sen's interval."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtest import pages
from loadtest.measure.record import Record
from loadtest.measure.soak import (
    MIN_POINTS,
    Drift,
    Finding,
    Limits,
    Look,
    Point,
    Slope,
    Trend,
    drifts,
    finding,
    theil_sen,
    thinned,
    to_json,
    trend,
)

LIMITS = Limits(growth_mb_per_h=10.0, drift=1.3)
WINDOW_S = (10.0, 310.0)


def record(intended_s: float, ttft_s: float = 0.2, gap_s: float = 0.02, **changed: Any) -> Record:
    chunks = tuple((intended_s + ttft_s + gap_s * index, 1) for index in range(5))
    plain = Record(
        request=0, kind="chat", protocol="grpc", model="smollm2", intended_s=intended_s, sent_s=intended_s,
        first_s=chunks[0][0], end_s=chunks[-1][0], tokens_in=8, tokens_out=5, chunks=chunks,
        finish_reason="length", error=None, expected=True, phase="measure",
    )  # fmt: skip
    return replace(plain, **changed)


def records(slow_from_s: float = 1e9, factor: float = 1.0) -> list[Record]:
    """One a second; from that moment on slower by a factor."""
    return [
        record(float(at), *((0.2 * factor, 0.02 * factor) if at >= slow_from_s else (0.2, 0.02)))
        for at in range(10, 310)
    ]


def looks(mb_per_h: float, minutes: int = 30) -> list[Look]:
    """Every five seconds; 100 MB at first, which grow, and a jump in the first two minutes."""
    times = range(0, minutes * 60, 5)
    sizes = [100e6 * (at > 120) + 100e6 + mb_per_h * 1e6 * at / 3600 for at in times]
    return [
        Look(float(at), rss=int(size), pss=int(size * 0.9), processes=3)
        for at, size in zip(times, sizes, strict=True)
    ]


def found(
    taken: Sequence[Record], seen: Sequence[Look], *, settle_s: float = 300, ended: bool = False
) -> Finding:
    return finding(taken, WINDOW_S, seen, 1.0, settle_s, LIMITS, ended=ended)


def test_a_steady_server_holds() -> None:
    steady = found(records(), looks(2.0))
    assert steady.holds
    assert steady.rss_slope is not None
    assert steady.rss_slope.value == pytest.approx(2.0, abs=0.01)
    assert (steady.requests, steady.errors, steady.tokens_out) == (300, 0, 1500)


@given(st.floats(11, 1000))
def test_a_leak_is_seen(mb_per_h: float) -> None:
    leaking = found(records(), looks(mb_per_h))
    assert leaking.rss_trend is Trend.GROWING
    assert not leaking.holds


def test_what_grows_while_settling_is_no_leak() -> None:
    assert found(records(), looks(0.0), settle_s=150).rss_trend is Trend.STEADY


def test_one_error_is_too_many() -> None:
    taken = [*records(), record(100.0, error="UNAVAILABLE", finish_reason=None, expected=False)]
    assert found(taken, looks(0.0)).errors == 1
    assert not found(taken, looks(0.0)).holds


def test_an_expected_error_does_not_fail_a_soak() -> None:
    taken = [*records(), record(100.0, error="INVALID_ARG", finish_reason=None)]
    assert found(taken, looks(0.0)).holds


def test_what_is_not_measured_does_not_count() -> None:
    late = record(100.0, error="timeout", finish_reason=None, expected=False, phase="drain")
    assert found([*records(), late], looks(0.0)).errors == 0


def test_a_server_that_ended_does_not_hold() -> None:
    assert not found(records(), looks(0.0), ended=True).holds


def test_too_few_looks_are_undecided_and_do_not_hold() -> None:
    short = found(records(), looks(0.0)[:3], settle_s=0)
    assert short.rss_trend is Trend.UNDECIDED
    assert not short.holds


@pytest.mark.parametrize(("factor", "holds"), [(1.0, True), (1.2, True), (1.4, False), (0.5, True)])
def test_the_last_third_must_be_like_the_first(factor: float, holds: bool) -> None:
    slower = found(records(slow_from_s=210, factor=factor), looks(0.0))
    assert [drift.ratio for drift in slower.drifts] == pytest.approx([factor, factor])
    assert slower.holds is holds


def test_a_slow_middle_is_no_drift() -> None:
    taken = [record(float(at), 2.0 if 120 <= at < 200 else 0.2) for at in range(10, 310)]
    assert drifts(taken, WINDOW_S)[0].ratio == pytest.approx(1.0)


def test_a_third_without_a_request_does_not_hold() -> None:
    ttft, gap = drifts([record(20.0)], WINDOW_S)
    assert (ttft.ratio, gap.last_p99_s) == (None, None)
    assert not ttft.holds(LIMITS)


@given(st.floats(-100, 100), st.floats(0, 50), st.floats(0, 50))
def test_a_trend_is_what_the_whole_interval_says(value: float, below: float, above: float) -> None:
    slope = Slope(value, value - below, value + above, 20)
    seen = trend(slope, LIMITS)
    assert (seen is Trend.STEADY) == (slope.high <= LIMITS.growth_mb_per_h)
    assert (seen is Trend.GROWING) == (slope.low > LIMITS.growth_mb_per_h)


@given(st.floats(0.001, 10), st.floats(0.001, 10))
def test_only_a_rise_is_a_drift(first_s: float, last_s: float) -> None:
    assert Drift("TTFT", first_s, last_s).holds(LIMITS) == (last_s / first_s <= LIMITS.drift)


def test_the_report_says_what_was_missed() -> None:
    output = io.StringIO()
    bad = found([*records(210, 2.0), record(50.0, expected=False, error="timeout")], looks(100.0))
    pages.show_soak(bad, Console(file=output))
    text = output.getvalue()
    assert "growing" in text
    assert text.count("missed") == 3
    assert "5.0 min at 1 requests/s: 301 requests" in text


def test_the_json_has_the_verdict_and_every_look() -> None:
    seen = looks(0.0)
    content = json.loads(json.dumps(to_json(found(records(), seen), seen, {}, interrupted=False)))
    assert content["holds"] is True
    assert content["finding"]["rss_trend"] == "steady"
    assert len(content["memory"]["rss_bytes"]) == len(seen)
    assert content["finding"]["drifts"][0]["ratio"] == pytest.approx(1.0)


SLOPES = st.floats(-1e3, 1e3)
COUNTS = st.integers(MIN_POINTS, 60)


def slope_of(points: list[Point], confidence: float = 0.95) -> Slope:
    slope = theil_sen(points, confidence)
    assert slope is not None
    return slope


def noisy(seed: int, count: int, slope: float, noise: float) -> list[Point]:
    draw = random.Random(seed)
    return [(at / 10, slope * at / 10 + draw.gauss(0, noise)) for at in range(count)]


@given(SLOPES, st.floats(-1e4, 1e4), COUNTS)
def test_a_line_has_its_slope_and_no_doubt(slope: float, level: float, count: int) -> None:
    line = slope_of([(at, level + slope * at) for at in range(count)])
    assert (line.value, line.low, line.high) == pytest.approx((slope,) * 3, abs=1e-6)


@given(st.integers(0, 10**6), COUNTS, SLOPES)
def test_adding_a_line_adds_its_slope(seed: int, count: int, slope: float) -> None:
    points = noisy(seed, count, 1.0, 5.0)
    one, other = slope_of(points), slope_of([(at, value + slope * at) for at, value in points])
    assert other.value == pytest.approx(one.value + slope, abs=1e-6)
    assert (other.low, other.high) == pytest.approx((one.low + slope, one.high + slope), abs=1e-6)


@given(st.integers(0, 10**6), COUNTS)
def test_time_reversed_turns_the_slope_around(seed: int, count: int) -> None:
    points = noisy(seed, count, 2.0, 3.0)
    one, other = slope_of(points), slope_of([(-at, value) for at, value in points])
    assert other.value == pytest.approx(-one.value)
    assert other.low <= -one.value <= other.high


@given(st.integers(0, 10**6), COUNTS)
def test_the_slope_lies_in_its_interval_and_more_confidence_is_wider(seed: int, count: int) -> None:
    points = noisy(seed, count, 0.0, 1.0)
    narrow, wide = slope_of(points, 0.8), slope_of(points, 0.99)
    assert wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high


@given(st.integers(0, 10**6), st.sampled_from([-1e6, 1e6]))
def test_a_quarter_of_wild_points_does_not_turn_it(seed: int, wild: float) -> None:
    draw = random.Random(seed)
    points = [(float(at), 3.0 * at) for at in range(40)]
    for index in draw.sample(range(40), 8):
        points[index] = (points[index][0], wild)
    assert slope_of(points).value == pytest.approx(3.0)


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    slopes = [slope_of(noisy(seed, 30, 5.0, 2.0)) for seed in range(400)]
    held = sum(slope.low <= 5.0 <= slope.high for slope in slopes) / len(slopes)
    assert 0.92 <= held <= 0.99


def test_values_that_are_equal_have_no_slope() -> None:
    assert slope_of([(at, 7.0) for at in range(20)]) == Slope(0.0, 0.0, 0.0, 20)


@given(st.integers(0, MIN_POINTS - 1))
def test_few_points_tell_nothing(count: int) -> None:
    assert theil_sen([(at, 1.0) for at in range(count)]) is None


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), max_size=300), st.integers(1, 50))
def test_thinned_points_are_few_in_order_and_among_the_values(points: list[Point], most: int) -> None:
    few = thinned(points, most)
    assert len(few) == min(len(points), most)
    assert few == sorted(few, key=lambda point: point[0])
    if points:
        values = [value for _, value in points]
        assert all(min(values) <= value <= max(values) for _, value in few)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), max_size=50))
def test_few_points_are_not_thinned(points: list[Point]) -> None:
    assert sorted(thinned(points, 50)) == sorted(points)


@given(st.floats(-100, 100), st.integers(200, 500))
def test_thinning_keeps_the_slope_of_a_line(slope: float, count: int) -> None:
    line = [(float(at), slope * at) for at in range(count)]
    assert slope_of(thinned(line)).value == pytest.approx(slope, abs=1e-9)
