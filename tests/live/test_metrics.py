"""The metrics of the design on Triton's port: they are all there, and they count what was sent."""

from __future__ import annotations

import random
import re
from functools import partial
from typing import Any

import pytest

from halimede import Client
from tests.live.artifacts import MODEL
from tests.live.crowd import WIRES, at_once, leave_after
from tests.live.serving import Server
from tests.live.wire import Answer, ask, refused
from tests.live.wire_grpc import GrpcWire

pytestmark = pytest.mark.e2e

PROMPT = "Once upon a time"
# The table of docs/design.md: the kind, and the label that is added to model and version.
METRICS: dict[str, tuple[str, str | None]] = {
    "num_requests_waiting": ("gauge", None),
    "num_requests_running": ("gauge", None),
    "kv_cache_usage_perc": ("gauge", None),
    "prompt_tokens_total": ("counter", None),
    "generation_tokens_total": ("counter", None),
    "prefix_cache_queries_total": ("counter", None),
    "prefix_cache_hits_total": ("counter", None),
    "request_success_total": ("counter", "finished_reason"),
    "requests_rejected_total": ("counter", "reason"),
    "time_to_first_token_seconds": ("histogram", "streamed"),
    "inter_token_latency_seconds": ("histogram", "streamed"),
    "inter_response_latency_seconds": ("histogram", None),
    "e2e_request_latency_seconds": ("histogram", "streamed"),
    "request_queue_time_seconds": ("histogram", None),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_the_design_is_there(small: Server, name: str) -> None:
    kind, label = METRICS[name]
    metrics = small.metrics
    assert re.search(rf"^# HELP halimede_{name} \w.+$", metrics.text, re.MULTILINE)
    assert f"# TYPE halimede_{name} {kind}\n" in metrics.text
    series = list(metrics.series(f"{name}_count" if kind == "histogram" else name))
    assert series
    for labels, _ in series:
        assert labels.keys() == {"model", "version"} | ({label} if label else set())
        assert (labels["model"].rpartition("_")[0], labels["version"]) == (MODEL, "1")


def test_the_level_of_the_kernels_is_that_of_the_card(small: Server) -> None:
    with Client(small.address.grpc, model=MODEL) as client:
        level = client.card().kernels
    ((labels, value),) = small.metrics.series("kernels_info")
    assert (labels["level"], labels["why"], value) == (level, "", 1)
    assert f"{MODEL} runs on the kernels, level {level}" in small.output


def test_counters_match_what_was_sent(small: Server) -> None:
    before = small.wait_idle()
    with GrpcWire(small.address) as wire:
        counted = {"ignore_eos": True, "return_num_input_tokens": True}
        unary = ask(wire, PROMPT, max_tokens=5, **counted)
        streamed = ask(wire, PROMPT, max_tokens=7, stream=True, **counted)
        stopped = ask(wire, PROMPT, max_tokens=7, stop_words=[unary.text[1:3]], **counted)
        refused(wire, text_input=PROMPT, top_p=0.0)
        refused(wire, text_input=PROMPT, max_tokens=10**6)
    grown = partial(small.wait_idle().since, before)
    prompt = unary.replies[0].input_tokens or 0
    assert stopped.finish == "stop_sequence"
    assert prompt > 0
    assert grown("prompt_tokens_total") == grown("prefix_cache_queries_total") == 3 * prompt
    assert grown("generation_tokens_total") == 5 + 7 + stopped.tokens
    assert grown("request_success_total", finished_reason="length") == 2
    assert grown("request_success_total", finished_reason="stop_sequence") == 1
    assert grown("request_success_total") == grown("request_queue_time_seconds_count") == 3
    assert grown("requests_rejected_total", reason="invalid_arg") == grown("requests_rejected_total") == 2
    for name in ("time_to_first_token_seconds_count", "e2e_request_latency_seconds_count"):
        assert (grown(name, streamed="false"), grown(name, streamed="true")) == (2, 1)
    assert grown("inter_token_latency_seconds_count", streamed="true") == streamed.tokens - 1 == 6


@pytest.mark.parametrize("streams", [1, 3])
def test_the_gaps_between_responses_are_as_many_as_clients_see(small: Server, streams: int) -> None:
    """Of a stream one less than its responses with text; an answer that is not streamed is one response."""
    before = small.wait_idle()

    def gaps(number: int) -> tuple[int, int]:
        with WIRES["http" if number % 2 else "grpc"](small.address) as wire:
            given = {"max_tokens": 60, "ignore_eos": True, "return_num_output_tokens": True}
            replies = list(wire.open(text_input=f"Story {number}:", stream=True, **given))
            list(wire.open(text_input=f"Story {number}:", **given))
        texts = [reply.text for reply in replies if reply.text]
        return len(texts) - 1, Answer(replies).tokens

    seen, tokens = zip(*at_once([partial(gaps, number) for number in range(streams)]), strict=True)
    assert tokens == (60,) * streams
    assert small.wait_idle().since(before, "inter_response_latency_seconds_count") == sum(seen)
    assert streams == 1 or sum(seen) < sum(tokens) - streams, "each token came alone"


def test_a_prefix_that_is_cached_shows(small: Server) -> None:
    before = small.wait_idle()
    with GrpcWire(small.address) as wire:
        text = "Numbers, in order: " + ", ".join(map(str, range(40)))
        for ending in (", 41", ", 42"):
            answer = ask(wire, text + ending, max_tokens=1, return_num_input_tokens=True)
    hits = small.wait_idle().since(before, "prefix_cache_hits_total")
    tokens = answer.replies[0].input_tokens or 0
    assert tokens - 4 <= hits < tokens


def test_every_ending_is_counted_under_its_reason(int8: Server) -> None:
    before = int8.wait_idle()
    long: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True}
    with GrpcWire(int8.address) as wire:
        ask(wire, "Bye", logit_bias='{"2": 100}')  # the end-of-sequence token
        refused(wire, text_input="")  # by the tokenizer
        refused(wire, text_input="word " * 5000)  # by the engine
        refused(wire, text_input="a", timeout=2_000_000, **long)  # past its first token
    leave_after(int8.address, "grpc", 1, text_input="a", max_tokens=2000)
    grown = partial(int8.wait_idle().since, before)
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
    hits = int8.wait_idle().since(before, "prefix_cache_hits_total")
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
