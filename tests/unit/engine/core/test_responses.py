from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.core.pacing import LONGEST_NS, Responses, tokens_together
from tests.fakes.loop import ToyEngine, ToyModel, text_of

COUNTS = st.integers(1, 2000)
STEPS = st.lists(st.tuples(st.integers(0, LONGEST_NS // 2), COUNTS), min_size=1, max_size=60)


@given(COUNTS)
def test_more_streams_never_mean_smaller_responses(running: int) -> None:
    assert 1 <= tokens_together(running) <= tokens_together(running + 1) <= 8


@given(STEPS, st.integers(1, 20))
def test_a_set_interval_holds_whatever_runs(steps: list[tuple[int, int]], interval: int) -> None:
    responses, now = Responses(interval), 0
    for number, (took, running) in enumerate(steps, 1):
        now += took
        assert responses.decoded(now, running) == (number % interval == 0)


@given(STEPS)
def test_no_token_waits_for_eight_others_or_for_long(steps: list[tuple[int, int]]) -> None:
    responses, now, sent, waiting = Responses(0), 0, 0, 0
    for took, running in steps:
        now += took
        waiting += 1
        if responses.decoded(now, running):
            sent, waiting = now, 0
        assert waiting < tokens_together(running)
        assert now - sent < LONGEST_NS


def chunks_of(clients: int, stream_interval: int = 0, step_ns: int = 1_000_000) -> list[list[int]]:
    """The tokens of each response of streams that run together to the end, each of which gets its answer."""
    engine = ToyEngine(slots=32, max_queue=32, stream_interval=stream_interval)
    asked = [engine.ask([number, 2, 3], max_tokens=50) for number in range(clients)]
    while engine.loop.keys():
        engine.clock.now += step_ns
        engine.step()
    for number, client in enumerate(asked):
        assert client.text == text_of(ToyModel().greedy([number, 2, 3], 50))
    return [[chunk.tokens for chunk in client.chunks if chunk.tokens] for client in asked]


def test_one_stream_gets_each_token_at_once() -> None:
    assert chunks_of(1) == [[1] * 50]


def test_few_streams_get_few_tokens_together() -> None:
    assert [(sizes[0], max(sizes)) for sizes in chunks_of(3)] == [(1, 3)] * 3


def test_many_streams_get_up_to_eight_together_and_their_first_token_at_once() -> None:
    """They start one a step: the last ones find all others running."""
    found = chunks_of(32)
    assert {sizes[0] for sizes in found} == {1}
    assert {sum(sizes) for sizes in found} == {50}
    assert max(max(sizes) for sizes in found) == 8
    assert len(found[-1]) <= 12


def test_all_streams_get_theirs_after_the_same_step() -> None:
    engine = ToyEngine(slots=8, max_queue=8)
    clients = [engine.ask([number, 2, 3], max_tokens=50) for number in range(8)]
    while len(engine.scheduler.running) < 8:
        engine.step()
    counts = [len(client.chunks) for client in clients]
    for _ in range(20):
        engine.step()
        grown = {len(client.chunks) - before for client, before in zip(clients, counts, strict=True)}
        assert len(grown) == 1
    assert grown <= {2, 3}


def test_on_a_slow_engine_no_token_waits() -> None:
    assert chunks_of(32, step_ns=LONGEST_NS) == [[1] * 50] * 32


def test_the_setting_decides_when_it_is_set() -> None:
    assert chunks_of(32, stream_interval=1) == [[1] * 50] * 32
    assert max(map(max, chunks_of(2, stream_interval=8))) == 8
