from __future__ import annotations

import threading
from typing import Any

import pytest

from engine.errors import DeadlineExceeded, InternalError, InvalidArgument, Unavailable
from engine.recorder import E2E, ITL, QUEUE, STREAMED, TTFT
from engine.request import FinishReason, Request, Sampling
from engine.sampler import Alternative, Choice, describe
from engine.stops import TextStream
from tests.fakes import EOS, GARBAGE, TOY_TABLE, VOCAB, Client, ToyEngine, ToyModel, answer_alone

LABELS = dict(zip((False, True), STREAMED, strict=True))


def text_of(tokens: list[int]) -> str:
    return TOY_TABLE.join(tokens).decode("utf-8", "replace")


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


def test_a_cancelled_request_leaves_its_prefix_behind() -> None:
    engine = ToyEngine(min_reuse=4)
    client = engine.ask([5] * 10, max_tokens=50)
    engine.step()
    engine.step()
    engine.loop.cancel(client.key)
    engine.step()
    before = engine.runner.prefilled
    again = engine.ask([5] * 10 + [6, 7], max_tokens=3)
    engine.run()
    assert engine.runner.prefilled - before == 2
    assert again.text == text_of(ToyModel().greedy([5] * 10 + [6, 7], 3))


def test_a_cached_prefix_is_not_computed_again_and_is_counted() -> None:
    engine = ToyEngine(min_reuse=4, chunk=64)
    shared = [7] * 20
    engine.ask([*shared, 1], max_tokens=3)
    engine.run()
    engine.recorder.drain()
    client = engine.ask([*shared, 2, 3], max_tokens=3)
    engine.run()
    assert client.text == text_of(ToyModel().greedy([*shared, 2, 3], 3))
    assert engine.runner.prefilled == 21 + 2
    counters = engine.recorder.drain().counters
    assert counters["prompt_tokens_total", ()] == 22
    assert counters["prefix_cache_queries_total", ()] == 22
    assert counters["prefix_cache_hits_total", ()] == 20


def test_a_prefix_is_shared_with_a_running_stream() -> None:
    engine = ToyEngine(min_reuse=4, chunk=64)
    first = engine.ask([7] * 20, max_tokens=30)
    engine.step()
    second = engine.ask([*[7] * 15, 1, 2], max_tokens=10)
    engine.run()
    assert engine.runner.prefilled == 20 + 2
    assert first.text == text_of(ToyModel().greedy([7] * 20, 30))
    assert second.text == text_of(ToyModel().greedy([*[7] * 15, 1, 2], 10))


def test_a_full_queue_refuses_and_hurts_nobody() -> None:
    engine = ToyEngine(slots=1, max_queue=2)
    accepted = [engine.ask([1]), engine.ask([2])]
    with pytest.raises(Unavailable, match=r"^UNAVAILABLE: queue: 2 requests waiting, limit 2; retry later$"):
        engine.ask([3])
    engine.run()
    assert [client.tokens for client in accepted] == [8, 8]
    assert engine.loop.keys() == []


@pytest.mark.parametrize("prompt", [[VOCAB], [1, -1], [10**9]])
def test_a_token_id_out_of_the_vocabulary_is_refused(prompt: list[int]) -> None:
    """It would fail a step, or read another row of the embedding."""
    engine = ToyEngine()
    wrong = prompt[-1]
    with pytest.raises(InvalidArgument) as caught:
        engine.ask(prompt, repetition_penalty=1.5)
    assert str(caught.value) == f"INVALID_ARG: input_ids: {wrong}, must be a token id in [0, {VOCAB - 1}]"
    assert not engine.step()


def test_a_bias_out_of_the_vocabulary_is_refused() -> None:
    engine = ToyEngine()
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: logit_bias: .*must be a token id in \[0, "):
        engine.ask([1], logit_bias=((VOCAB, 1.0),))


@pytest.mark.parametrize("operation", ["decode", "prefill"])
def test_a_failed_step_ends_its_own_requests_and_no_others(operation: str) -> None:
    engine = ToyEngine(slots=2, chunk=4)
    decoding = engine.ask([1], max_tokens=20)
    engine.step()
    prefilling, waiting = engine.ask([2] * 20), engine.ask([3])
    engine.step()
    engine.runner.faults[operation] = MemoryError("no memory")
    engine.step()
    failed, well = (decoding, prefilling) if operation == "decode" else (prefilling, decoding)
    assert failed.error == "INTERNAL: engine: the step failed (MemoryError); the request was ended"
    assert not well.done
    engine.run()
    assert [str(fault) for fault in engine.faults] == ["no memory"]
    assert well.errors == waiting.errors == []
    for client, prompt in ((well, [1] if well is decoding else [2] * 20), (waiting, [3])):
        assert client.text == text_of(ToyModel().greedy(prompt, client.tokens))
    assert engine.counter("requests_rejected_total", reason="internal") == 1


def test_a_failed_move_ends_the_requests_of_its_step() -> None:
    engine = ToyEngine(slots=2, chunk=64, min_reuse=4)
    running = engine.ask([1] * 10, max_tokens=20)
    engine.step()
    newcomer, waiting = engine.ask([*[1] * 8, 2]), engine.ask([*[1] * 8, 3])
    engine.runner.faults["copy"] = RuntimeError("bad copy")
    engine.step()
    assert [running.done, newcomer.done, waiting.done] == [True, True, False]
    engine.run()
    assert waiting.text == text_of(ToyModel().greedy([*[1] * 8, 3], 8))


def test_what_a_failed_move_wrote_is_never_reused() -> None:
    """What slot 0 held was to be saved in slot 1, which holds garbage now."""
    engine = ToyEngine(slots=2, chunk=64, min_reuse=2)
    prompt = [1, 2, 3, 4, 5, 6]
    engine.ask(prompt, max_tokens=1)
    engine.run()
    engine.runner.faults["copy"] = RuntimeError("bad copy")
    failed = engine.ask([1, 2, 3, 9, 9])
    engine.run()
    assert failed.error.startswith("INTERNAL: engine: ")
    again = engine.ask([*prompt, 7, 7])
    engine.run()
    assert again.text == text_of(ToyModel().greedy([*prompt, 7, 7], 8))


def test_logits_that_are_not_finite_end_the_step() -> None:
    engine = ToyEngine()
    client = engine.ask([1], max_tokens=20)
    engine.step()
    engine.runner.poison = {0}
    engine.step()
    assert client.error.startswith("INTERNAL: engine: the step failed (FloatingPointError)")
    engine.runner.poison = set()
    after = engine.ask([1], max_tokens=4)
    engine.run()
    assert after.text == text_of(ToyModel().greedy([1], 4))


def test_what_a_failed_step_wrote_is_never_reused() -> None:
    engine = ToyEngine(slots=1, chunk=4, min_reuse=2)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    failed = engine.ask(prompt)
    engine.step()
    engine.runner.faults["prefill"] = RuntimeError("x")
    engine.step()
    assert failed.done
    engine.runner.rows[:] = GARBAGE
    again = engine.ask(prompt)
    engine.run()
    assert again.text == text_of(ToyModel().greedy(prompt, 8))


def test_latencies_are_measured_from_arrival() -> None:
    engine = ToyEngine(slots=1)
    for stream in (True, False):
        first = engine.ask([1], stream=stream, max_tokens=3)
        second = engine.ask([2], stream=stream, max_tokens=1)
        while not second.done:
            engine.clock.advance(100)
            engine.step()
        assert first.done
        seen = engine.recorder.drain().observations
        assert seen[QUEUE, ()] == [0.1, 0.4]
        assert seen[TTFT, LABELS[stream]] == [0.1, 0.4]
        assert seen[ITL, LABELS[stream]] == [0.1, 0.1]
        assert seen[E2E, LABELS[stream]] == [pytest.approx(0.3), 0.4]


def test_the_queue_time_of_a_prompt_with_a_cached_prefix_is_recorded_once() -> None:
    engine = ToyEngine(chunk=4, min_reuse=4)
    for last in (1, 2):
        engine.ask([*[7] * 20, last, last], max_tokens=2)
        engine.clock.advance(100)
        engine.run()
    assert engine.recorder.drain().observations[QUEUE, ()] == [0.1, 0.1]


def test_counters_add_up() -> None:
    engine = ToyEngine(slots=2)
    clients = [engine.ask([1, 2, 3 + i], max_tokens=4 + i) for i in range(3)]
    engine.loop.cancel(clients[0].key)
    engine.run()
    counters = engine.recorder.drain().counters
    assert counters["generation_tokens_total", ()] == clients[1].tokens + clients[2].tokens
    assert counters["prompt_tokens_total", ()] == 6
    assert counters["request_success_total", (("finished_reason", "length"),)] == 2
    assert counters["requests_rejected_total", (("reason", "cancelled"),)] == 1


def test_gauges_tell_where_requests_are() -> None:
    engine = ToyEngine(slots=2, capacity=32, chunk=16)
    for start in range(4):
        engine.ask([start + 1] * 16, max_tokens=2)
    engine.step()
    gauges = engine.recorder.drain().gauges
    assert gauges == {"num_requests_waiting": 3, "num_requests_running": 1, "kv_cache_usage_perc": 0.25}
    engine.run()
    gauges = engine.recorder.drain().gauges
    assert gauges == {"num_requests_waiting": 0, "num_requests_running": 0, "kv_cache_usage_perc": 0.0}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("send", [True, False])
def test_there_is_a_logprob_entry_for_each_token(stream: bool, send: bool) -> None:
    engine = ToyEngine()
    client = engine.ask([1], stream=stream, max_tokens=6, num_logprobs=2)
    engine.run(send=send)
    for chunk in client.chunks:
        assert len(chunk.logprobs) == chunk.tokens
    entries = [entry for chunk in client.chunks for entry in chunk.logprobs]
    assert [entry["id"] for entry in entries] == ToyModel().greedy([1], 6)
    for entry in entries:
        assert bytes(entry["bytes"]) == TOY_TABLE[entry["id"]]
        assert entry["top"][0] == {name: entry[name] for name in ("id", "token", "bytes", "logprob")}
        assert len(entry["top"]) == 2


def test_a_logprob_without_end_is_a_number() -> None:
    entry = describe(Choice(1, float("-inf"), (Alternative(14, float("-inf")),)), TOY_TABLE)
    alternative = {"id": 14, "token": "�", "bytes": [0xC3], "logprob": -3.4e38}
    assert entry == {"id": 1, "token": "a", "bytes": [97], "logprob": -3.4e38, "top": [alternative]}


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


def running_thread(engine: ToyEngine) -> threading.Thread:
    thread = threading.Thread(target=engine.loop.run, daemon=True)
    thread.start()
    return thread


def test_requests_of_many_threads_are_all_answered() -> None:
    engine = ToyEngine(slots=3, max_queue=1000)
    sender = threading.Thread(target=engine.outbox.run, daemon=True)
    sender.start()
    loop = running_thread(engine)

    def ask(first: int) -> None:
        for second in range(20):
            engine.ask([first, second], max_tokens=5)

    threads = [threading.Thread(target=ask, args=[first]) for first in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    while engine.loop.keys():
        pass
    engine.loop.stop()
    loop.join(60)
    engine.outbox.close()
    sender.join(60)
    assert len({client.key for client in engine.clients}) == 80
    assert [client.finals for client in engine.clients] == [1] * 80
    assert all(client.tokens == 5 for client in engine.clients)
    assert not engine.faults


def test_stop_leaves_nothing() -> None:
    engine = ToyEngine(slots=2)
    clients = [engine.ask([start + 1], max_tokens=50) for start in range(5)]
    engine.step()
    engine.loop.stop()
    engine.loop.run()
    engine.outbox.send_pending()
    for client in clients:
        assert client.error == "UNAVAILABLE: server: stopped before the answer was complete"
        assert (client.finals, client.late) == (1, 0)
    assert engine.loop.keys() == []
    assert len(engine.scheduler.slots.free) == 2
    with pytest.raises(Unavailable, match=r"^UNAVAILABLE: server: stopping, accepts no more requests$"):
        engine.ask([1])


def test_an_idle_loop_wakes_up_to_stop() -> None:
    engine = ToyEngine()
    thread = running_thread(engine)
    engine.loop.stop()
    thread.join(30)
    assert not thread.is_alive()


def test_a_bug_in_the_loop_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ToyEngine()
    client = engine.ask([1])

    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine.scheduler, "schedule", broken)
    engine.loop.run()
    engine.outbox.send_pending()
    assert client.error.startswith("UNAVAILABLE: server: stopped")
    assert [type(fault) for fault in engine.faults] == [ZeroDivisionError]
    with pytest.raises(Unavailable):
        engine.ask([2])


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
