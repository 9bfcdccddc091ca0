from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.responses import LONGEST_NS, is_due, tokens_together
from tests.fakes import ToyEngine, ToyModel, text_of

COUNTS = st.integers(1, 2000)


@given(COUNTS)
def test_more_streams_never_mean_smaller_responses(running: int) -> None:
    assert 1 <= tokens_together(running) <= tokens_together(running + 1) <= 4


@given(COUNTS, st.integers(0, 2 * LONGEST_NS), st.integers(1, 1024), COUNTS)
def test_a_set_interval_holds_whatever_runs(unsent: int, waited: int, interval: int, running: int) -> None:
    assert is_due(unsent, waited, interval, running) == (unsent >= interval)


@given(COUNTS, st.integers(0, 2 * LONGEST_NS), COUNTS)
def test_no_token_waits_for_three_others_or_for_long(unsent: int, waited: int, running: int) -> None:
    if unsent >= 4 or waited >= LONGEST_NS or running < 8:
        assert is_due(unsent, waited, 0, running)


def chunks_of(clients: int, stream_interval: int = 0, step_ns: int = 1_000_000) -> list[list[int]]:
    """The tokens of each response of streams that run together to the end, each of which gets its answer."""
    engine = ToyEngine(slots=32, max_queue=32, stream_interval=stream_interval)
    asked = [engine.ask([number, 2, 3], max_tokens=20) for number in range(clients)]
    while engine.loop.keys():
        engine.clock.now += step_ns
        engine.step()
    for number, client in enumerate(asked):
        assert client.text == text_of(ToyModel().greedy([number, 2, 3], 20))
    return [[chunk.tokens for chunk in client.chunks if chunk.tokens] for client in asked]


def test_few_streams_get_each_token_at_once() -> None:
    assert chunks_of(4) == [[1] * 20] * 4


def test_many_streams_get_up_to_four_together_and_their_first_token_at_once() -> None:
    """They start one a step: the last ones find all others running."""
    found = chunks_of(32)
    assert {sizes[0] for sizes in found} == {1}
    assert {sum(sizes) for sizes in found} == {20}
    assert max(max(sizes) for sizes in found) == 4
    assert found[16] == [1, 4, 4, 4, 4, 3]


def test_on_a_slow_engine_no_token_waits() -> None:
    assert chunks_of(32, step_ns=LONGEST_NS) == [[1] * 20] * 32


def test_the_setting_decides_when_it_is_set() -> None:
    assert chunks_of(32, stream_interval=1) == [[1] * 20] * 32
    assert chunks_of(2, stream_interval=8) == [[1, 8, 8, 3]] * 2
