from __future__ import annotations

import pytest

from engine.edge.metrics import E2E, GAP, ITL, QUEUE, STREAMED, TTFT
from engine.sampling.sampler import Alternative, Choice, logprob_entry
from tests.fakes.loop import TOY_TABLE, ToyEngine, ToyModel, text_of

LABELS = dict(zip((False, True), STREAMED, strict=True))


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


def test_tokens_are_timed_as_they_are_computed_and_responses_as_they_are_sent() -> None:
    engine = ToyEngine(stream_interval=8)
    clients = [engine.ask([1, 2, 3], stream=stream, max_tokens=12) for stream in (True, False)]
    while engine.loop.keys():
        engine.clock.advance(10)
        engine.step()
    streamed, whole = clients
    assert [chunk.tokens for chunk in streamed.chunks if chunk.tokens] == [1, 8, 3]
    assert [chunk.tokens for chunk in whole.chunks] == [12]
    seen = engine.recorder.drain().observations
    assert seen[GAP, ()] == [0.08, 0.03]
    assert seen[ITL, LABELS[True]] == seen[ITL, LABELS[False]] == [0.01] * 11


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
    entry = logprob_entry(Choice(1, float("-inf"), (Alternative(14, float("-inf")),)), TOY_TABLE)
    alternative = {"id": 14, "token": "�", "bytes": [0xC3], "logprob": -3.4e38}
    assert entry == {"id": 1, "token": "a", "bytes": [97], "logprob": -3.4e38, "top": [alternative]}
