"""Intervals and tests against formulas of another kind, exact fractions, and published tables."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.evaluate.statistics import bootstrap, kl, mcnemar
from safety.intervals import wilson

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_the_bounds_of_wilson_are_where_the_score_test_has_its_limit(count_and_n: tuple[int, int]) -> None:
    """(share - bound)^2 = z^2 bound (1 - bound) / n, the equation that the interval solves."""
    count, n = count_and_n
    for bound in wilson(count, n):
        assert 0 <= bound <= 1
        distance = (count / n - bound) ** 2 - 1.959963984540054**2 * bound * (1 - bound) / n
        assert distance == pytest.approx(0, abs=1e-12)


def test_wilson_gives_the_values_of_newcombe_1998() -> None:
    """Table I, method 3, of Two-sided confidence intervals for the single proportion."""
    table = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (count, n), expected in table.items():
        assert wilson(count, n) == pytest.approx(expected, abs=5e-5)


def test_nothing_is_known_of_no_items() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(0, 14), st.integers(0, 14))
def test_mcnemar_is_the_share_of_coin_tosses_as_uneven(gained: int, lost: int) -> None:
    """Sums outcomes from both sides, not twice one side."""
    n = gained + lost
    uneven = [k for k in range(n + 1) if abs(2 * k - n) >= abs(gained - lost)]
    expected = sum(Fraction(math.comb(n, k), 2**n) for k in uneven)
    assert mcnemar(gained, lost) == pytest.approx(float(expected), rel=1e-12)


def test_mcnemar_counts_tosses_one_by_one() -> None:
    tosses = [sum(each) for each in itertools.product((0, 1), repeat=9)]
    assert mcnemar(8, 1) == sum(heads in {0, 1, 8, 9} for heads in tosses) / len(tosses)


def test_mcnemar_of_thousands_of_flips_is_finite() -> None:
    assert mcnemar(3000, 3000) == 1.0
    assert 0 < mcnemar(2900, 3100) < 0.05


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(5).normal(3.0, 2.0, 900)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    low, high = bootstrap(values)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_bootstrap_gives_the_same_interval_again() -> None:
    values = np.arange(40.0)
    assert bootstrap(values) == bootstrap(values)


def test_the_bootstrap_keeps_the_columns_of_an_item_together() -> None:
    """The two columns differ by 1 in each item, so their difference has no spread at all."""
    first = np.random.default_rng(7).normal(0, 50, 60)
    rows = np.stack([first, first + 1], axis=1)
    low, high = bootstrap(rows, lambda drawn: float(drawn[:, 1].mean() - drawn[:, 0].mean()))
    assert (low, high) == pytest.approx((1, 1))


shares = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda xs: [x / sum(xs) for x in xs])


@given(shares, shares)
def test_the_divergence_is_cross_entropy_less_entropy(first: list[float], second: list[float]) -> None:
    cross = -sum(p * math.log(q) for p, q in zip(first, second, strict=True))
    entropy = -sum(p * math.log(p) for p in first)
    assert kl(first, second) == pytest.approx(cross - entropy, abs=1e-12)
    assert kl(first, first) == 0


def test_the_divergence_is_infinite_where_something_became_impossible() -> None:
    assert kl([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert kl([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.log(2))
