"""The slope of memory over time: Theil's estimator and Sen's interval."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.soak.slope import MIN_POINTS, Point, Slope, theil_sen, thinned

SLOPES = st.floats(-1e3, 1e3)
COUNTS = st.integers(MIN_POINTS, 60)


def found(points: list[Point], confidence: float = 0.95) -> Slope:
    slope = theil_sen(points, confidence)
    assert slope is not None
    return slope


def noisy(seed: int, count: int, slope: float, noise: float) -> list[Point]:
    draw = random.Random(seed)
    return [(at / 10, slope * at / 10 + draw.gauss(0, noise)) for at in range(count)]


@given(SLOPES, st.floats(-1e4, 1e4), COUNTS)
def test_a_line_has_its_slope_and_no_doubt(slope: float, level: float, count: int) -> None:
    line = found([(at, level + slope * at) for at in range(count)])
    assert (line.value, line.low, line.high) == pytest.approx((slope,) * 3, abs=1e-6)


@given(st.integers(0, 10**6), COUNTS, SLOPES)
def test_adding_a_line_adds_its_slope(seed: int, count: int, slope: float) -> None:
    points = noisy(seed, count, 1.0, 5.0)
    one, other = found(points), found([(at, value + slope * at) for at, value in points])
    assert other.value == pytest.approx(one.value + slope, abs=1e-6)
    assert (other.low, other.high) == pytest.approx((one.low + slope, one.high + slope), abs=1e-6)


@given(st.integers(0, 10**6), COUNTS)
def test_time_reversed_turns_the_slope_around(seed: int, count: int) -> None:
    points = noisy(seed, count, 2.0, 3.0)
    one, other = found(points), found([(-at, value) for at, value in points])
    assert other.value == pytest.approx(-one.value)
    assert other.low <= -one.value <= other.high


@given(st.integers(0, 10**6), COUNTS)
def test_the_slope_lies_in_its_interval_and_more_confidence_is_wider(seed: int, count: int) -> None:
    points = noisy(seed, count, 0.0, 1.0)
    narrow, wide = found(points, 0.8), found(points, 0.99)
    assert wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high


@given(st.integers(0, 10**6), st.sampled_from([-1e6, 1e6]))
def test_a_quarter_of_wild_points_does_not_turn_it(seed: int, wild: float) -> None:
    draw = random.Random(seed)
    points = [(float(at), 3.0 * at) for at in range(40)]
    for index in draw.sample(range(40), 8):
        points[index] = (points[index][0], wild)
    assert found(points).value == pytest.approx(3.0)


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    slopes = [found(noisy(seed, 30, 5.0, 2.0)) for seed in range(400)]
    held = sum(slope.low <= 5.0 <= slope.high for slope in slopes) / len(slopes)
    assert 0.92 <= held <= 0.99


def test_values_that_are_equal_have_no_slope() -> None:
    assert found([(at, 7.0) for at in range(20)]) == Slope(0.0, 0.0, 0.0, 20)


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
def test_what_is_few_already_stays(points: list[Point]) -> None:
    assert sorted(thinned(points, 50)) == sorted(points)


@given(st.floats(-100, 100), st.integers(200, 500))
def test_thinning_keeps_the_slope_of_a_line(slope: float, count: int) -> None:
    line = [(float(at), slope * at) for at in range(count)]
    assert found(thinned(line)).value == pytest.approx(slope, abs=1e-9)
