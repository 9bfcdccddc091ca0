from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import DeadlineExceeded, InternalError, Unavailable
from engine.core.request import FinishReason, Request, Sampling
from engine.core.stops import TextStream
from tests.fakes.loop import EOS, TOY_TABLE, VOCAB, Client, ToyEngine, ToyModel, answer_alone, text_of


def test_an_answer_is_the_models() -> None:
    engine = ToyEngine()
    client = engine.ask([1, 2, 3], max_tokens=20)
    engine.run()
    assert client.text == text_of(ToyModel().greedy([1, 2, 3], 20))
    assert client.tokens == 20
    assert client.finish is FinishReason.LENGTH
    assert [chunk.prompt_tokens for chunk in client.chunks] == [3] * len(client.chunks)


def test_a_unary_answer_is_one_parcel() -> None:
    engine = ToyEngine()
    client = engine.ask([1, 2, 3], stream=False, max_tokens=20)
    engine.run()
    assert len(client.chunks) == 1
    assert client.tokens == 20
    assert client.text == text_of(ToyModel().greedy([1, 2, 3], 20))


def test_a_stream_is_a_parcel_for_each_step() -> None:
    engine = ToyEngine()
    client = engine.ask([1, 2, 3], max_tokens=5)
    assert engine.run() == 5
    assert [chunk.tokens for chunk in client.chunks] == [1] * 5


def test_a_stream_that_is_not_sent_is_joined() -> None:
    engine = ToyEngine()
    client = engine.ask([1, 2, 3], max_tokens=9)
    engine.run(send=False)
    assert [chunk.tokens for chunk in client.chunks] == [9]
    assert client.text == text_of(ToyModel().greedy([1, 2, 3], 9))


def test_the_answer_ends_where_the_context_does() -> None:
    engine = ToyEngine(capacity=16)
    client = engine.ask([1] * 10, max_tokens=16)
    engine.run()
    assert client.tokens == 6
    assert client.finish is FinishReason.LENGTH


def ask_until_eos(engine: ToyEngine, **sampling: Any) -> tuple[list[int], Client]:
    """A prompt whose answer has an EOS, but not at once."""
    for start in range(1, 1000):
        tokens = ToyModel().greedy([start % VOCAB, start // VOCAB], 30)
        if 2 < (tokens.index(EOS) if EOS in tokens else 0) < 20:
            return tokens, engine.ask([start % VOCAB, start // VOCAB], max_tokens=30, **sampling)
    raise AssertionError


def test_eos_ends_an_answer_and_is_no_text() -> None:
    engine = ToyEngine(eos=frozenset({EOS}))
    tokens, client = ask_until_eos(engine)
    engine.run()
    end = tokens.index(EOS)
    assert client.finish is FinishReason.STOP
    assert client.tokens == end + 1
    assert client.text == text_of(tokens[:end])


def test_eos_is_ignored_when_asked() -> None:
    engine = ToyEngine(eos=frozenset({EOS}))
    tokens, client = ask_until_eos(engine, ignore_eos=True)
    engine.run()
    assert client.finish is FinishReason.LENGTH
    assert client.text == text_of(tokens)


def test_a_long_prompt_does_not_stall_the_streams() -> None:
    """Every step of the prefill also gives each stream a token."""
    engine = ToyEngine(chunk=4)
    stream = engine.ask([1], max_tokens=40)
    engine.step()
    long = engine.ask([2] * 40, max_tokens=2)
    for step in range(10):
        engine.step()
        assert stream.tokens == step + 2
    assert long.tokens == 1


def test_streams_that_wait_get_heartbeats() -> None:
    engine = ToyEngine(slots=1)
    engine.ask([1], max_tokens=20)
    waiting, unary = engine.ask([2]), engine.ask([3], stream=False)
    for _ in range(3):
        engine.clock.advance(499)
        engine.step()
        assert waiting.chunks == []
        engine.clock.advance(1)
        engine.step()
        assert [(c.tokens, c.finish) for c in waiting.chunks] == [(0, None)]
        assert waiting.text == ""
        waiting.chunks.clear()
    assert unary.chunks == []


def test_streams_that_prefill_get_heartbeats() -> None:
    engine = ToyEngine(chunk=4)
    client = engine.ask([1] * 40, max_tokens=3)
    for _ in range(9):
        engine.clock.advance(500)
        engine.step()
    assert [chunk.tokens for chunk in client.chunks] == [0] * 9
    engine.run()
    assert client.text == text_of(ToyModel().greedy([1] * 40, 3))


def test_a_stream_with_tokens_gets_no_heartbeat() -> None:
    engine = ToyEngine()
    client = engine.ask([1], max_tokens=5)
    for _ in range(5):
        engine.clock.advance(10_000)
        engine.step()
    assert [chunk.tokens for chunk in client.chunks] == [1] * 5


def test_a_deadline_ends_a_request_wherever_it_is() -> None:
    engine = ToyEngine(slots=2, chunk=4)
    running = engine.ask([1], timeout_ms=100, max_tokens=50)
    engine.step()
    prefilling = engine.ask([2] * 30, timeout_ms=100)
    engine.step()
    waiting = engine.ask([3], timeout_ms=100)
    other = engine.ask([4], max_tokens=3)
    engine.clock.advance(99)
    engine.step()
    assert not any(client.done for client in (running, prefilling, waiting))
    engine.clock.advance(1)
    engine.step()
    assert running.error == "DEADLINE_EXCEEDED: timeout: 100000 us passed after 3 tokens"
    assert prefilling.error == waiting.error == "DEADLINE_EXCEEDED: timeout: 100000 us passed after 0 tokens"
    assert engine.loop.keys() == [other.key]
    engine.run()
    assert other.tokens == 3


def test_a_deadline_that_has_passed_is_refused_at_once() -> None:
    engine = ToyEngine()
    with pytest.raises(DeadlineExceeded, match=r"^DEADLINE_EXCEEDED: timeout: 0 us passed after 0 tokens"):
        engine.ask([1], timeout_ms=0)
    assert engine.loop.keys() == []


def test_a_cancelled_request_ends_before_the_next_step_runs() -> None:
    engine = ToyEngine()
    client = engine.ask([1], max_tokens=50)
    engine.step()
    engine.loop.cancel(client.key)
    engine.step()
    assert client.error == "CANCELLED: request: cancelled by the client"
    assert client.tokens == 1
    assert engine.runner.calls == ["prefill"]
    assert len(engine.scheduler.slots.free) == 4


def test_a_fault_of_the_detokenizer_ends_a_request_as_an_error() -> None:
    engine = ToyEngine()
    client = engine.ask([1], max_tokens=50)
    engine.loop.cancel(client.key, InternalError("detokenizer", "could not decode a chunk"))
    engine.run()
    assert client.error == "INTERNAL: detokenizer: could not decode a chunk"


def test_an_unknown_request_is_one_that_has_ended() -> None:
    engine = ToyEngine()
    client = engine.ask([1], max_tokens=1)
    engine.run()
    engine.loop.cancel(client.key)
    engine.loop.cancel(999)
    assert not engine.step()
    assert (client.finals, client.late) == (1, 0)


def test_a_full_queue_refuses_and_hurts_nobody() -> None:
    engine = ToyEngine(slots=1, max_queue=2)
    accepted = [engine.ask([number]) for number in range(3)]
    with pytest.raises(Unavailable, match=r"^UNAVAILABLE: queue: 2 requests waiting, limit 2; retry later$"):
        engine.ask([3])
    engine.run()
    assert [client.tokens for client in accepted] == [8, 8, 8]
    assert engine.loop.keys() == []


def test_sampled_answers_repeat_with_their_seed() -> None:
    texts = []
    for others in (0, 3):
        engine = ToyEngine()
        for start in range(others):
            engine.ask([start + 5], max_tokens=30, temperature=1.0, seed=start)
        client = engine.ask([1, 2], max_tokens=30, temperature=1.5, top_p=0.9, seed=42)
        engine.run()
        texts.append(client.text)
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 3


def test_nothing_to_do_is_no_step() -> None:
    engine = ToyEngine()
    assert not engine.step()
    assert engine.runner.calls == []


def test_a_request_without_an_arrival_time_is_accepted() -> None:
    """One that came straight to the engine step."""
    engine, client = ToyEngine(), Client()
    engine.loop.submit(Request((1,), Sampling(2)), client, str)
    engine.run()
    assert client.tokens == 2


def test_the_reference_answer_is_the_models() -> None:
    text, count, finish = answer_alone([1, 2], Sampling(9), 64)
    assert (text, count, finish) == (text_of(ToyModel().greedy([1, 2], 9)), 9, FinishReason.LENGTH)
    stream = TextStream(TOY_TABLE, ())
    assert stream.take(final=True).tokens == ()
