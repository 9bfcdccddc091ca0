"""One schedule, whoever sends it: the same for a seed, split over workers, at the rate asked for."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import TrafficError
from loadtest.traffic.profile import Bad, Profile, profile_of, with_overrides
from loadtest.traffic.schedule import MIN_OWN_TOKENS, TEMPLATE_TOKENS, Planned, schedule, share_of

TWO: list[dict[str, Any]] = [
    {
        "name": "chat",
        "weight": 3,
        "prompt_tokens": {"uniform": [1, 400]},
        "output_tokens": {"uniform": [1, 99]},
        "shared_prefix": {"share": 0.4, "tokens": 120, "groups": 3},
    },
    {"name": "one", "prompt_tokens": {"constant": 30}, "output_tokens": {"constant": 5}},
]
ARRIVALS: list[dict[str, Any]] = [
    {"kind": "closed", "users": 3},
    {"kind": "constant", "rate_per_s": 7},
    {"kind": "poisson", "rate_per_s": 7},
    {"kind": "gamma", "rate_per_s": 7, "variation": 3},
    {"kind": "trace"},
]


def _profile(arrivals: dict[str, Any], mix: list[dict[str, Any]] | None = None, **rest: Any) -> Profile:
    return profile_of({"warmup_s": 0, "arrivals": arrivals, "mix": mix or TWO, **rest})


def _first(profile: Profile, number: int = 200, worker: int = 0, workers: int = 1) -> list[Planned]:
    return list(islice(schedule(profile, worker, workers), number))


def _gaps(profile: Profile) -> list[float]:
    times = [planned.at_s or 0.0 for planned in schedule(profile)]
    return [after - before for before, after in pairwise(times)]


@given(st.sampled_from(ARRIVALS), st.integers(1, 7), st.integers(0, 2**63 - 1))
def test_the_workers_together_send_the_one_schedule(
    arrivals: dict[str, Any], workers: int, seed: int
) -> None:
    profile = _profile(arrivals, seed=seed, duration_s=5)
    parts = [_first(profile, 20, worker, workers) for worker in range(workers)]
    together = sorted((planned for part in parts for planned in part), key=lambda planned: planned.request)
    assert together == _first(profile, 20 * workers)
    assert [planned.request for planned in together] == list(range(len(together)))


@pytest.mark.parametrize("arrivals", ARRIVALS)
def test_a_seed_gives_the_same_requests_and_another_gives_others(arrivals: dict[str, Any]) -> None:
    profile = _profile(arrivals)
    assert _first(profile, 50) == _first(profile, 50) != _first(replace(profile, seed=2), 50)


@given(st.floats(0.1, 50), st.floats(0.1, 50))
def test_a_rate_changes_the_times_alone(rate: float, other: float) -> None:
    one, two = (
        _first(_profile({"kind": "poisson", "rate_per_s": r}, duration_s=1e6), 10) for r in (rate, other)
    )
    assert len(one) == 10
    assert [replace(planned, at_s=0.0) for planned in one] == [replace(planned, at_s=0.0) for planned in two]


@pytest.mark.parametrize("arrivals", ARRIVALS[1:])
def test_times_grow_from_the_start_to_the_end_of_the_run(arrivals: dict[str, Any]) -> None:
    profile = _profile(arrivals, duration_s=30, warmup_s=10)
    times = [planned.at_s or 0.0 for planned in schedule(profile)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert 35 < times[-1] < 40


def test_a_closed_loop_has_no_times_and_no_end() -> None:
    found = _first(_profile(ARRIVALS[0], duration_s=0.1), 5000)
    assert len(found) == 5000
    assert {planned.at_s for planned in found} == {None}


def test_a_constant_rate_is_that_rate() -> None:
    times = [
        planned.at_s for planned in schedule(_profile({"kind": "constant", "rate_per_s": 4}, duration_s=3))
    ]
    assert times == [number / 4 for number in range(12)]


@pytest.mark.parametrize(
    ("arrivals", "mean_s", "variation"),
    [
        ({"kind": "poisson", "rate_per_s": 5}, 0.2, 1.0),
        ({"kind": "gamma", "rate_per_s": 5, "variation": 2.5}, 0.2, 2.5),
        ({"kind": "trace", "rate_per_s": 2, "speed": 4}, 0.125, 1.0),
    ],
)
def test_random_arrivals_have_their_rate_and_their_spread(
    arrivals: dict[str, Any], mean_s: float, variation: float
) -> None:
    gaps = _gaps(_profile(arrivals, duration_s=4000))
    assert statistics.mean(gaps) == pytest.approx(mean_s, rel=4 * variation / math.sqrt(len(gaps)))
    assert statistics.pstdev(gaps) / statistics.mean(gaps) == pytest.approx(variation, rel=0.06)


def test_the_gaps_of_poisson_are_independent_of_each_other() -> None:
    gaps = _gaps(_profile({"kind": "poisson", "rate_per_s": 5}, duration_s=4000))
    assert abs(statistics.correlation(gaps[:-1], gaps[1:])) < 4 / math.sqrt(len(gaps))


def test_the_mix_and_its_prefixes_come_as_often_as_asked() -> None:
    found = _first(_profile(ARRIVALS[0]), 20_000)
    chats = [planned for planned in found if planned.kind.name == "chat"]
    assert len(chats) / len(found) == pytest.approx(0.75, abs=0.02)
    long = [planned for planned in chats if planned.tokens_in > MIN_OWN_TOKENS]
    groups = Counter(planned.prefix_group for planned in long)
    assert set(groups) == {None, 0, 1, 2}
    for group in range(3):
        assert groups[group] / len(long) == pytest.approx(0.4 / 3, abs=0.02)


@given(st.integers(0, 2**63 - 1), st.sampled_from([None, 128, 300, 2048]))
def test_what_is_planned_fits_and_says_what_it_is(seed: int, context: int | None) -> None:
    rest = {} if context is None else {"max_context": context}
    found = _first(_profile({"kind": "trace"}, [{"name": "t"}, *TWO], seed=seed, **rest), 20)
    assert len(found) == 20
    for planned in found:
        assert planned.tokens_in >= 1
        assert planned.tokens_out >= 1
        if context:
            assert planned.tokens_in + planned.tokens_out <= context - TEMPLATE_TOKENS
        else:
            assert not planned.clipped
        assert (planned.prefix_group is None) == (planned.prefix_tokens == 0)
        assert planned.prefix_tokens <= max(min(120, planned.tokens_in - MIN_OWN_TOKENS), 0)


def test_what_is_cut_to_the_context_is_marked_and_keeps_its_answer_where_it_can(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("when,in,out\n0,5000,100\n1,100,5000\n2,100,50\n3,100,0\n", "utf-8")
    content = {
        "warmup_s": 0,
        "max_context": 1048,
        "arrivals": {"kind": "trace", "file": "t.csv", "columns": ["when", "in", "out"]},
        "mix": [{"name": "t"}],
    }
    found = [(p.tokens_in, p.tokens_out, p.clipped) for p in schedule(profile_of(content, folder=tmp_path))]
    assert found == [(900, 100, True), (100, 500, True), (100, 50, False), (100, 1, True)]


def test_a_trace_is_scaled_and_played_faster(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n0,500,100\n8,100,7\n999,1,1\n"
    (tmp_path / "t.csv").write_text(text, "utf-8")
    arrivals = {"kind": "trace", "file": "t.csv", "speed": 2, "scale": 0.5}
    content = {"duration_s": 60, "arrivals": arrivals, "mix": [{"name": "t"}]}
    found = [(p.at_s, p.tokens_in, p.tokens_out) for p in schedule(profile_of(content, folder=tmp_path))]
    assert found == [(0, 250, 50), (4, 50, 4)]


def test_an_entry_keeps_its_own_lengths_in_a_trace() -> None:
    mix = [{"name": "own", "prompt_tokens": {"constant": 9}, "output_tokens": {"constant": 3}}]
    assert {(p.tokens_in, p.tokens_out) for p in _first(_profile({"kind": "trace"}, mix))} == {(9, 3)}


def test_requests_that_must_be_refused_are_not_cut() -> None:
    mix: list[dict[str, Any]] = [
        {
            "name": "long",
            "bad": "too_long",
            "prompt_tokens": {"constant": 5000},
            "output_tokens": {"constant": 8},
        },
        {"name": "empty", "bad": "empty"},
    ]
    found = {planned.kind.bad: planned for planned in _first(_profile(ARRIVALS[1], mix, max_context=512))}
    assert found[Bad.TOO_LONG].tokens_in == 5000
    assert found[Bad.EMPTY].tokens_in == 0
    assert not any(planned.clipped for planned in found.values())


def test_a_trace_that_cannot_be_read_is_reported_before_the_first_request(tmp_path: Path) -> None:
    content = {"arrivals": {"kind": "trace", "file": "no.csv"}, "mix": [{"name": "t"}]}
    profile = profile_of(content, folder=tmp_path)
    with pytest.raises(TrafficError, match=r"no\.csv: cannot be read"):
        schedule(profile)


@pytest.mark.parametrize(("worker", "workers"), [(-1, 2), (2, 2), (0, 0)])
def test_a_worker_number_out_of_range_is_refused(worker: int, workers: int) -> None:
    with pytest.raises(TrafficError, match=f"worker {worker}: must be from 0 to"):
        schedule(_profile(ARRIVALS[0]), worker, workers)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_users_are_shared_out_evenly(users: int, workers: int) -> None:
    shares = [share_of(users, worker, workers) for worker in range(workers)]
    assert sum(shares) == users
    assert max(shares) - min(shares) <= 1


def test_flags_take_the_place_of_the_profiles_own() -> None:
    closed = with_overrides(_profile(ARRIVALS[0]), users=5, duration_s=9, warmup_s=0, seed=4)
    assert closed == _profile({"kind": "closed", "users": 5}, duration_s=9, seed=4)
    assert with_overrides(_profile(ARRIVALS[2]), rate_per_s=3) == _profile(
        {"kind": "poisson", "rate_per_s": 3}
    )
    faster = with_overrides(_profile(ARRIVALS[4]), speed=3)
    assert faster == _profile({"kind": "trace", "speed": 3})
    assert with_overrides(faster, rate_per_s=2) == _profile({"kind": "trace", "rate_per_s": 2})


@pytest.mark.parametrize(
    ("arrivals", "flags", "message"),
    [
        (ARRIVALS[1], {"users": 3}, "--users 3: only closed arrivals"),
        (ARRIVALS[0], {"users": 0}, "--users: 0, must be a whole number from 1"),
        (ARRIVALS[0], {"rate_per_s": 3}, "--rate 3: closed arrivals have no rate"),
        (ARRIVALS[1], {"rate_per_s": 0}, "--rate: 0, must be above 0 and at most 100000"),
        (ARRIVALS[1], {"rate_per_s": math.nan}, "--rate: nan, must be a number above 0"),
        (ARRIVALS[1], {"speed": 3}, "--speed 3: only a trace"),
        (ARRIVALS[4], {"speed": -1}, "--speed: -1, must be above 0"),
        ({"kind": "trace", "file": "x"}, {"rate_per_s": 3}, "--rate 3: a trace's file brings its own times"),
        (ARRIVALS[1], {"duration_s": 0}, "--duration: 0, must be above 0"),
        (ARRIVALS[1], {"warmup_s": -1}, "--warmup: -1, must be of at least 0"),
        (ARRIVALS[1], {"seed": -1}, "--seed: -1, must be a whole number from 0"),
    ],
)
def test_a_flag_that_does_not_fit_is_refused(
    arrivals: dict[str, Any], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrafficError, match=message):
        with_overrides(_profile(arrivals), **flags)
