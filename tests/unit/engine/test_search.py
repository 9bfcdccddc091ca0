"""Beam searches in the engine: their slots, their place in the queue, what ends them, what they answer."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import EngineError, InternalError, NotFinite
from engine.core.request import FinishReason, Sampling
from engine.edge.metrics import TTFT
from tests.fakes.loop import EOS, Client, ToyEngine, answer_alone, searched_alone

CAPACITY = 64
KINDS = pytest.mark.parametrize("source_capacity", [0, 32], ids=["decoder", "encoder-decoder"])


def engine_of(slots: int = 4, source_capacity: int = 0, max_queue: int = 8) -> ToyEngine:
    eos = frozenset({EOS})
    return ToyEngine(slots, CAPACITY, max_queue, eos=eos, source_capacity=source_capacity)


def search(engine: ToyEngine, prompt: list[int], timeout_ms: int | None = None, **sampling: Any) -> Client:
    return engine.ask(prompt, False, timeout_ms, **{"num_beams": 3, "ignore_eos": True, **sampling})


def free(engine: ToyEngine) -> int:
    return len(engine.scheduler.slots.free)


def refused(engine: ToyEngine, prompt: list[int], **sampling: Any) -> str:
    with pytest.raises(EngineError) as caught:
        engine.ask(prompt, stream=False, **sampling)
    return str(caught.value)


@KINDS
def test_the_answer_of_a_search_is_one_final_chunk(source_capacity: int) -> None:
    engine = engine_of(source_capacity=source_capacity)
    client = engine.ask([5, 6, 7], stream=False, num_beams=3, max_tokens=9)
    engine.run()
    wanted = Sampling(9, num_beams=3)
    expected = searched_alone([5, 6, 7], wanted, CAPACITY, frozenset({EOS}), encoder=source_capacity > 0)
    assert (client.text, client.tokens, client.finish) == expected
    assert len(client.chunks) == 1
    assert client.chunks[0].prompt_tokens == 3


@KINDS
def test_a_search_holds_as_many_slots_as_beams(source_capacity: int) -> None:
    engine = engine_of(4, source_capacity)
    search(engine, [1, 2], max_tokens=20)
    for _ in range(3):
        engine.step()
        assert free(engine) == 1
    engine.run()
    assert free(engine) == 4


def test_a_search_waits_for_its_slots_and_nobody_overtakes_it() -> None:
    engine = engine_of(4)
    running = [engine.ask([key], ignore_eos=True, max_tokens=6 + 8 * key) for key in range(1, 4)]
    for _ in range(3):
        engine.step()
    waiting = search(engine, [9], num_beams=2, max_tokens=4)
    late = engine.ask([8], ignore_eos=True, max_tokens=4)
    while not running[0].done:
        assert len(engine.scheduler.waiting) == 2  # one slot is free, and the second request would fit
        engine.step()
    engine.run()
    assert all(client.finish is FinishReason.LENGTH for client in (*running, waiting, late))


@pytest.mark.parametrize("beams", [2, 3])
def test_those_that_free_slots_await_do_not_count_as_queued(beams: int) -> None:
    engine = engine_of(4, max_queue=1)
    search(engine, [1], num_beams=beams)
    engine.ask([2])
    if beams == 2:
        engine.ask([2])
    engine.ask([2])
    assert refused(engine, [2]) == "UNAVAILABLE: queue: 1 requests waiting, limit 1; retry later"


def test_more_beams_than_slots_are_refused() -> None:
    assert refused(engine_of(3), [1], num_beams=4) == (
        "INVALID_ARG: num_beams: 4, must be at most 3 (the slots)"
    )


def test_a_streamed_search_is_refused() -> None:
    with pytest.raises(EngineError, match=r"^INVALID_ARG: stream: true, must be false with num_beams 2$"):
        engine_of().ask([1], stream=True, num_beams=2)


@KINDS
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_a_cancelled_search_frees_all_its_slots_within_a_step(source_capacity: int, steps: int) -> None:
    engine = engine_of(4, source_capacity)
    client = search(engine, [1] * 12, max_tokens=30)
    for _ in range(steps):
        engine.step()
    engine.loop.cancel(client.key, InternalError("detokenizer", "x"))
    engine.step()
    assert free(engine) == 4
    assert client.error == "INTERNAL: detokenizer: x"


def test_a_deadline_frees_all_slots_and_counts_the_tokens() -> None:
    engine = engine_of()
    client = search(engine, [1], timeout_ms=50, max_tokens=30)
    for _ in range(5):
        engine.step()
    engine.clock.advance(60)
    engine.step()
    assert free(engine) == 4
    assert client.error == "DEADLINE_EXCEEDED: timeout: 50000 us passed after 5 tokens"


@KINDS
@pytest.mark.parametrize("fault", ["decode", "copy"])
def test_a_failed_step_ends_its_search_and_frees_its_slots(source_capacity: int, fault: str) -> None:
    engine = engine_of(4, source_capacity)
    client = search(engine, [1, 2, 3], max_tokens=30)
    engine.runner.faults = {fault: RuntimeError("fault")}
    engine.run()
    assert client.error == "INTERNAL: engine: the step failed (RuntimeError); the request was ended"
    assert free(engine) == 4
    again = search(engine, [1, 2, 3], max_tokens=30)
    engine.run()
    assert again.finish is FinishReason.LENGTH


def test_a_copy_that_fails_harms_no_other_request() -> None:
    engine = engine_of(4)
    other = engine.ask([4, 4], ignore_eos=True, max_tokens=20)
    engine.step()
    client = search(engine, [1, 2, 3], max_tokens=30)
    while "copy" not in engine.runner.calls:
        engine.runner.faults = {"copy": RuntimeError("fault")}
        engine.step()
    engine.runner.faults = {}
    engine.run()
    assert client.errors
    assert (other.text, other.tokens, other.finish) == answer_alone(
        [4, 4], Sampling(20, ignore_eos=True), CAPACITY
    )


@pytest.mark.parametrize("row", [0, 1, 3])
def test_a_row_that_is_not_finite_fails_its_request_alone(row: int) -> None:
    """Row 3 is a greedy answer's, those before it are a search's."""
    engine = engine_of(4)
    searching = search(engine, [1, 2], max_tokens=20)
    engine.step()
    single = engine.ask([3], ignore_eos=True, max_tokens=20)
    engine.step()
    engine.runner.poison = {row}
    engine.step()
    engine.runner.poison = set()
    engine.run()
    failed, sound = (single, searching) if row == 3 else (searching, single)
    assert failed.error == str(NotFinite())
    assert sound.finish is FinishReason.LENGTH
    assert sound.tokens == 20


def test_of_many_streams_only_the_one_that_is_not_finite_fails() -> None:
    engine = engine_of(4)
    clients = [engine.ask([key, key], ignore_eos=True, max_tokens=12) for key in range(1, 5)]
    for _ in range(4):
        engine.step()
    engine.runner.poison = {2}
    engine.step()
    engine.runner.poison = set()
    engine.run()
    assert [bool(client.errors) for client in clients] == [False, False, True, False]
    for key in (1, 2, 4):
        alone = answer_alone([key, key], Sampling(12, ignore_eos=True), CAPACITY)
        assert (clients[key - 1].text, clients[key - 1].tokens, clients[key - 1].finish) == alone


def test_what_is_counted_of_a_search() -> None:
    engine = engine_of()
    search(engine, [1, 2, 3], max_tokens=7)
    engine.run()
    tally = engine.recorder.drain()
    assert tally.counters["generation_tokens_total", ()] == 7
    assert tally.counters["prompt_tokens_total", ()] == 3
    assert len(tally.observations[TTFT, (("streamed", "false"),)]) == 1
    assert tally.gauges["num_requests_running"] == 0


def test_beams_copy_only_what_they_have_not_in_common() -> None:
    engine = engine_of()
    search(engine, [1, 2] * 10, max_tokens=12)
    copied: list[int] = []
    copy = engine.runner.copy

    def counting(source: int, target: int, tokens: int, *, start: int = 0, cross: bool = True) -> None:
        copied.append(tokens - start)
        copy(source, target, tokens, start=start, cross=cross)

    engine.runner.copy = counting  # type: ignore[method-assign]
    engine.run()
    assert copied[:2] == [20, 20]  # the fork
    assert copied[2:]
    assert max(copied[2:]) < 12


def test_an_answer_longer_than_the_context_is_cut_where_it_was_not_asked_for() -> None:
    engine = engine_of()
    assert (
        refused(engine, [1], max_tokens=65) == "INVALID_ARG: max_tokens: 65, must be at most 64 (the context)"
    )
    for beams in (1, 2):
        client = engine.ask(
            [1], stream=False, open_ended=True, num_beams=beams, max_tokens=256, ignore_eos=True
        )
        engine.run()
        assert (client.tokens, client.finish) == (63, FinishReason.LENGTH)
