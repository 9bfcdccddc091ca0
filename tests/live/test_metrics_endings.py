"""What the metrics tell of requests that end early, of conversations, and of what runs just now."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.live.crowd import leave_after
from tests.live.serving import Server
from tests.live.wire import ask, refused
from tests.live.wire_grpc import GrpcWire

pytestmark = pytest.mark.e2e


def test_every_ending_is_counted_under_its_reason(int8: Server) -> None:
    before = int8.wait_idle()
    long: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True}
    with GrpcWire(int8.address) as wire:
        ask(wire, "Bye", logit_bias='{"2": 100}')  # the end-of-sequence token
        refused(wire, text_input="")  # by the tokenizer
        refused(wire, text_input="word " * 5000)  # by the engine
        refused(wire, text_input="a", timeout=2_000_000, **long)  # past its first token
    leave_after(int8.address, "grpc", 1, text_input="a", max_tokens=2000)
    after = int8.wait_idle()

    def grown(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    assert grown("request_success_total", finished_reason="stop") == 1
    assert grown("requests_rejected_total", reason="invalid_arg") == 2
    assert grown("requests_rejected_total", reason="deadline_exceeded") == 1
    assert grown("requests_rejected_total", reason="cancelled") == 1
    assert grown("requests_rejected_total") == 4
    # Those that ended early had a first token and no last one.
    assert grown("time_to_first_token_seconds_count") == 3
    assert grown("e2e_request_latency_seconds_count") == 1


def test_the_reasons_that_alerts_ask_for_are_there_from_the_start(small: Server) -> None:
    metrics = small.metrics
    finished = {labels["finished_reason"] for labels, _ in metrics.series("request_success_total")}
    rejected = {labels["reason"] for labels, _ in metrics.series("requests_rejected_total")}
    assert finished == {"stop", "length", "stop_sequence"}
    assert rejected >= {"invalid_arg", "unavailable", "deadline_exceeded", "cancelled", "internal"}


def test_a_conversation_reuses_its_history(int8: Server) -> None:
    """The second turn finds the first one's prompt in a slot, and of its answer all that was generated."""
    before = int8.wait_idle()
    prompt = " ".join(str(random.randrange(10**6)) for _ in range(40))
    with GrpcWire(int8.address) as wire:
        first = ask(wire, prompt, max_tokens=24, return_num_input_tokens=True)
        ask(wire, prompt + first.text + " And then?", max_tokens=4)
    hits = int8.wait_idle().total("prefix_cache_hits_total") - before.total("prefix_cache_hits_total")
    assert hits >= (first.replies[0].input_tokens or 0)


def test_gauges_follow_what_runs(small: Server) -> None:
    assert small.wait_idle().idle
    endless: dict[str, Any] = {"stream": True, "ignore_eos": True, "max_tokens": 500, "temperature": 0.0}
    with GrpcWire(small.address) as wire:
        stream = wire.open(text_input="A", **endless)
        seen = (small.metrics for _ in stream)
        metrics = next(found for found in seen if found.total("num_requests_running"))
        assert metrics.total("num_requests_running") == 1
        assert 0 < metrics.total("kv_cache_usage_perc") <= 0.5  # one of two slots
        stream.close()
    small.wait_idle()
