from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import BenchError
from loadtest.measure.sweep import (
    Outcome,
    Rung,
    Search,
    decode,
    encode,
    highest,
    lowest_miss,
    next_rate,
    sweep_of,
)
from tests.unit.loadtest.play import facts, played

rates = st.floats(0.01, 1000)


@st.composite
def searches(draw: st.DrawFn) -> Search:
    low, high = sorted((draw(rates), draw(rates)))
    return Search(low, high, draw(st.floats(0.01, 0.5)))


def climb(search: Search, met: st.SearchStrategy[bool] | float, data: st.DataObject) -> list[Outcome]:
    """`met` is the capacity, or what decides each rung without any order."""
    outcomes: list[Outcome] = []
    while (rate := next_rate(search, outcomes)) is not None:
        held = rate <= met if isinstance(met, float) else data.draw(met)
        outcomes.append(Outcome(rate, held))
        assert len(outcomes) < 100, "the search does not end"
    return outcomes


@given(searches(), rates, st.data())
def test_a_hidden_capacity_is_found_within_the_resolution(
    search: Search, capacity: float, data: st.DataObject
) -> None:
    outcomes = climb(search, capacity, data)
    found, missed = highest(outcomes), lowest_miss(outcomes)
    if found is None:
        assert capacity < search.start_per_s / 2**9
    elif missed is None:
        assert found == search.max_per_s
        assert capacity >= search.max_per_s
    else:
        assert found <= capacity < missed <= found * (1 + search.resolution) * (1 + 1e-9)


@given(searches(), st.data())
def test_no_rate_is_tried_twice_however_noisy_the_server(search: Search, data: st.DataObject) -> None:
    tried = [outcome.rate_per_s for outcome in climb(search, st.booleans(), data)]
    assert len(set(tried)) == len(tried)
    assert max(tried) <= search.max_per_s


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ((0, 1, 0.1), "sweep.start_per_s is 0, must be a finite number above 0"),
        ((1, float("inf"), 0.1), "sweep.max_per_s is inf"),
        ((2, 1, 0.1), "sweep.start_per_s is 2, must be at most 1"),
        ((1, 2, 1e-9), "sweep.resolution is 1e-09, must be at least 1e-06"),
    ],
)
def test_a_bad_search_is_refused(search: tuple[float, float, float], says: str) -> None:
    with pytest.raises(BenchError) as caught:
        Search(*search)
    assert says in str(caught.value)


def test_a_sweep_survives_its_file() -> None:
    rungs = [Rung(rate, played(1, rate)) for rate in (8.0, 4.0)]
    sweep = sweep_of(facts().profile, rungs)
    assert decode(encode(sweep)) == sweep
    assert (sweep.highest_rate_per_s, sweep.lowest_miss_per_s) == (4.0, 8.0)
    assert sweep.goodput_per_s == rungs[1].result.goodput_per_s
