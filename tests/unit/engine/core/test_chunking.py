"""How long a chunk is: never more than is left or allowed, and limited in time while streams run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.pacing import APART_EVERY, FIRST_CHUNK, LEAST, Limits, Pace, chunk_tokens, weight

SECONDS = st.floats(1e-4, 1.0)
LIMITS = st.builds(Limits, st.integers(1, 4096), st.sampled_from([0.0, 0.5, 2.0, 4.0]))
PACES = st.builds(Pace, st.none() | SECONDS, st.none() | SECONDS)
# SmolLM2-135M on two Zen 4 cores: eight rows decode in 22 ms, a token takes 0.8.
USUAL = Pace(0.022, 0.0008)


def _beside(pace: Pace, limits: Limits, start: int, left: int = 4096) -> int:
    return chunk_tokens(pace, limits, start, left, first=False, beside=True)


@given(PACES, LIMITS, st.integers(0, 10**5), st.integers(1, 10**5), st.booleans(), st.booleans())
def test_a_chunk_has_a_token_and_never_more_than_it_may(
    pace: Pace, limits: Limits, start: int, left: int, first: bool, beside: bool
) -> None:
    assert 1 <= chunk_tokens(pace, limits, start, left, first=first, beside=beside) <= min(left, limits.chunk)


@given(PACES, LIMITS, st.integers(0, 10**5), st.integers(1, 10**5))
def test_without_running_streams_a_chunk_is_as_long_as_allowed(
    pace: Pace, limits: Limits, start: int, left: int
) -> None:
    assert chunk_tokens(pace, limits, start, left, first=True, beside=False) == min(left, limits.chunk)


@given(SECONDS, SECONDS, st.sampled_from([0.5, 2.0, 4.0]), st.integers(0, 10**5))
def test_while_streams_run_a_chunk_takes_no_longer_than_its_time(
    decode_s: float, token_s: float, stall: float, start: int
) -> None:
    tokens = _beside(Pace(decode_s, token_s), Limits(4096, stall), start)
    if tokens > LEAST:
        # Its tokens attend to each other too, which was left out when its length was chosen.
        own = token_s * (weight(start, tokens) - tokens * weight(start, 1))
        assert token_s * weight(start, tokens) <= stall * decode_s + own + 1e-9


def test_a_chunk_is_shorter_the_more_is_behind_it() -> None:
    lengths = [_beside(USUAL, Limits(128, 2.0), start) for start in (0, 400, 800, 1200, 1600)]
    assert lengths == [48, 40, 32, 24, 24]


def test_slow_decodes_allow_longer_chunks() -> None:
    assert _beside(Pace(0.044, 0.0008), Limits(128, 2.0), 0) == 104


@pytest.mark.parametrize(
    ("start", "left", "tokens"),
    [(0, 128, 128), (0, 20, 20), (0, 129, LEAST), (1500, 60, 60), (1500, 90, LEAST)],
)
def test_a_prompt_that_takes_no_longer_than_one_chunk_runs_whole(start: int, left: int, tokens: int) -> None:
    hurried = Pace(0.001, 0.0008)
    assert chunk_tokens(hurried, Limits(128, 2.0), start, left, first=True, beside=True) == tokens


def test_the_rest_of_a_long_prompt_is_no_prompt_of_one_chunk() -> None:
    assert chunk_tokens(USUAL, Limits(128, 2.0), 1400, 100, first=False, beside=True) < 100


def test_chunks_of_fixed_length() -> None:
    assert _beside(USUAL, Limits(128, 0.0), 1000) == 128


@pytest.mark.parametrize("pace", [Pace(), Pace(decode_s=0.02), Pace(token_s=0.001)])
def test_before_anything_was_timed_chunks_are_short(pace: Pace) -> None:
    assert _beside(pace, Limits(512, 2.0), 0) == FIRST_CHUNK
    assert _beside(pace, Limits(8, 2.0), 0) == 8


def test_a_pace_follows_what_steps_take() -> None:
    pace = Pace().decoded(0.02).prefilled(800, 64, 0.0008 * weight(800, 64))
    assert (pace.decode_s, pace.token_s) == pytest.approx((0.02, 0.0008))
    for _ in range(30):
        pace = pace.decoded(0.06).prefilled(0, 64, 0.0016 * weight(0, 64))
    assert (pace.decode_s, pace.token_s) == pytest.approx((0.06, 0.0016), rel=0.01)


def test_the_time_of_a_chunk_is_that_of_its_step_less_the_decode() -> None:
    pace = Pace(decode_s=0.02).together(0, 64, 0.02 + 0.001 * weight(0, 64))
    assert (pace.decode_s, pace.token_s) == pytest.approx((0.02, 0.001))
    assert pace.together(0, 64, 0.015).token_s == pace.token_s


def test_decodes_are_timed_alone_every_so_many_steps_and_count_for_those_between() -> None:
    """However long prompts go on, a pace follows how many streams there are."""
    pace, apart = Pace(decode_s=0.01), 0
    for _ in range(4 * APART_EVERY):
        if pace.apart:
            pace, apart = pace.decoded(0.04).prefilled(0, 16, 0.016), apart + 1
        else:
            pace = pace.together(0, 16, 0.056)
    assert apart == 4
    assert pace.decode_s == pytest.approx(0.04, rel=0.05)


def test_a_hiccup_changes_a_pace_by_a_quarter_at_most() -> None:
    assert Pace(0.02).decoded(5.0).decode_s == pytest.approx(0.025)


def test_steps_of_no_duration_change_no_pace() -> None:
    assert Pace().decoded(0.0) == Pace()
    assert USUAL.decoded(0.0).prefilled(0, 64, 0.0) == USUAL


@given(st.integers(0, 4096), st.integers(1, 512), st.integers(1, 512))
def test_chunks_weigh_as_much_as_their_tokens_in_one(start: int, a: int, b: int) -> None:
    assert weight(start, a) + weight(start + a, b) == pytest.approx(weight(start, a + b))
