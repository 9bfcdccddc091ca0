"""Invariants 3, 5 and 7: requests that end early free what they held, and a full queue refuses."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

import pytest

from tests.live.conftest import CONTEXT, QUEUE, SLOTS
from tests.live.crowd import ENDLESS, WIRES, a_few_at_once, at_once, leave_after, running
from tests.live.serving import Server, eventually
from tests.live.wire import Reply, Wire, WireError, ask, refused
from tests.live.wire_grpc import GrpcWire
from tests.live.wire_http import HttpWire

pytestmark = pytest.mark.e2e

PROMPT = "Once upon a time"
LONG: dict[str, Any] = {"text_input": PROMPT, "max_tokens": 2000}
CANCELLED_AND_ENDED: tuple[tuple[str, dict[str, str]], ...] = (
    ("requests_rejected_total", {"reason": "cancelled"}),
    ("request_success_total", {}),
)


@pytest.mark.slow
def test_invariant_3_a_hundred_disconnects_leave_nothing_behind(int8: Server) -> None:
    before = int8.wait_idle()
    a_few_at_once(
        partial(leave_after, int8.address, ("http", "grpc")[number % 2], number % 3 + 1, **LONG)
        for number in range(100)
    )
    after = int8.wait_idle()
    cancelled, ended = (
        after.total(name, **labels) - before.total(name, **labels) for name, labels in CANCELLED_AND_ENDED
    )
    assert (cancelled, ended) == (100, 0), "each had most of its 2,000 tokens to come"
    with GrpcWire(int8.address) as wire:
        assert ask(wire, PROMPT, max_tokens=4).tokens == 4
    _ends_in_order(int8)


@pytest.mark.slow
def test_invariant_3_disconnects_at_any_moment_leave_nothing_behind(int8: Server) -> None:
    """Before the tokenizer, between the steps, in the queue, in the prefill, before the first chunk."""
    choose = random.Random(3)

    def leave(kind: str, seconds: float) -> None:
        with WIRES[kind](int8.address) as wire:
            wire.abandon(seconds, **ENDLESS, **LONG)

    a_few_at_once(partial(leave, kind, choose.random() * 0.1) for _ in range(50) for kind in WIRES)
    int8.wait_idle()
    _ends_in_order(int8)


@pytest.mark.slow
def test_invariant_3_requests_that_ended_in_errors_do_not_hold_the_stop_up(int8: Server) -> None:
    """Triton keeps the last ones referenced, and with them the model: it would not be unloaded."""
    for kind in WIRES:
        with WIRES[kind](int8.address) as wire:
            for stream in (False, True):
                refused(wire, text_input="", stream=stream)
                refused(wire, text_input="word " * 5000, stream=stream)
                refused(wire, **{**LONG, "ignore_eos": True, "stream": stream, "timeout": 100_000})
    _ends_in_order(int8)


def _ends_in_order(server: Server) -> None:
    """A server that waits until its exit timeout ends with another code."""
    server.process.terminate()
    assert server.wait_ended() == 0


def _in_flight(server: Server) -> tuple[float, float]:
    """How many run and how many wait."""
    metrics = server.metrics
    return metrics.total("num_requests_running"), metrics.total("num_requests_waiting")


def _count(server: Server, name: str, **labels: str) -> float:
    return server.metrics.total(name, **labels)


@pytest.mark.parametrize("kind", WIRES)
def test_invariant_3_leaving_one_stream_stops_its_generation(int8: Server, kind: str) -> None:
    int8.wait_idle()
    leave_after(int8.address, kind, 2, **LONG)
    stopped = int8.wait_idle().total("generation_tokens_total")
    with GrpcWire(int8.address) as wire:
        assert ask(wire, PROMPT, max_tokens=2).tokens == 2
    assert eventually(lambda: _count(int8, "generation_tokens_total") == stopped + 2)


@pytest.mark.parametrize("kind", WIRES)
@pytest.mark.parametrize("stream", [False, True])
def test_invariant_3_a_deadline_ends_a_request(int8: Server, kind: str, stream: bool) -> None:
    with WIRES[kind](int8.address) as wire:
        inputs = {**LONG, "ignore_eos": True, "stream": stream, "timeout": 1_000_000}
        replies, error = _overdue(wire, **inputs)
    assert (error.refusal.code, error.refusal.field) == ("DEADLINE_EXCEEDED", "timeout")
    assert error.refusal.problem.startswith("1000000 us")
    # Over SSE the first chunk has brought the status 200 already.
    assert error.status == {"http": 200 if replies else 400, "grpc": None}[kind]
    int8.wait_idle()


def _overdue(wire: Wire, **inputs: Any) -> tuple[list[Reply], WireError]:
    """The replies until the error, and the error."""
    replies: list[Reply] = []
    with pytest.raises(WireError) as caught:
        replies.extend(wire.open(**inputs))
    return replies, caught.value


def test_invariant_3_a_deadline_that_has_passed_already(int8: Server) -> None:
    with HttpWire(int8.address) as wire:
        assert refused(wire, **LONG, timeout=1).refusal.code == "DEADLINE_EXCEEDED"
        assert ask(wire, PROMPT, max_tokens=2, timeout=60_000_000).tokens == 2


@pytest.mark.parametrize("kind", WIRES)
def test_invariant_3_leaving_the_queue_makes_room_in_it(small: Server, kind: str) -> None:
    """A waiting request has no chunks. That its client has left is noticed when a heartbeat is sent."""
    small.wait_idle()
    with running(small.address, SLOTS, max_tokens=CONTEXT - 10):
        leave_after(small.address, kind, 2, text_input="I wait", max_tokens=100)
        assert eventually(lambda: _in_flight(small) == (SLOTS, 0))
    small.wait_idle()


def test_invariant_3_a_waiting_stream_gets_empty_heartbeats(small: Server) -> None:
    with running(small.address, SLOTS, max_tokens=CONTEXT - 10), GrpcWire(small.address) as wire:
        waiting = wire.open(text_input="I wait", stream=True, return_num_output_tokens=True)
        for reply in (next(waiting), next(waiting)):
            assert (reply.text, reply.finish, reply.output_tokens) == ("", "", 0)
        waiting.close()
    small.wait_idle()


def test_invariant_3_a_deadline_ends_a_request_that_waits(small: Server) -> None:
    with running(small.address, SLOTS, max_tokens=CONTEXT - 10), GrpcWire(small.address) as wire:
        heartbeats, error = _overdue(wire, text_input="I wait", stream=True, timeout=2_000_000)
        assert heartbeats
        assert not any(reply.text for reply in heartbeats)
        assert "DEADLINE_EXCEEDED: timeout: 2000000 us passed after 0 tokens" in error.text
        assert eventually(lambda: _in_flight(small) == (SLOTS, 0))
    small.wait_idle()


def test_invariant_5_a_full_queue_refuses_at_once(small: Server) -> None:
    small.wait_idle()
    with running(small.address, SLOTS, max_tokens=CONTEXT - 10) as streams, GrpcWire(small.address) as wire:
        queued = [wire.open(text_input="I wait", stream=True) for _ in range(QUEUE)]
        for replies in queued:
            assert next(replies).text == ""  # a heartbeat: it is in the queue
        for kind in WIRES:
            with WIRES[kind](small.address) as another:
                error = refused(another, text_input="no room", stream=True)
            assert (error.refusal.code, error.refusal.field) == ("UNAVAILABLE", "queue")
            assert f"{QUEUE} requests waiting, limit {QUEUE}" in error.refusal.problem
        # At once: those before it still generate, and those in the queue still wait.
        assert all(next(stream).finish == "" for stream in streams)
        queued.pop().close()
        assert eventually(partial(_is_admitted, wire))
        for replies in queued:
            replies.close()
    small.wait_idle()


def _is_admitted(wire: GrpcWire) -> bool:
    """Whether the queue has room; the request that tries leaves again."""
    replies = wire.open(text_input="is there room?", stream=True)
    try:
        return next(replies).finish == ""
    except WireError:
        return False
    finally:
        replies.close()


def test_invariant_5_a_prompt_past_the_context_is_refused_with_both_numbers(small: Server) -> None:
    for kind in WIRES:
        with WIRES[kind](small.address) as wire:
            error = refused(wire, text_input="word " * (CONTEXT + 10))
            assert error.refusal.field == "prompt"
            assert f"{CONTEXT + 11} tokens, must be at most {CONTEXT - 1}" in error.refusal.problem
            error = refused(wire, text_input=PROMPT, max_tokens=CONTEXT + 1)
            assert f"{CONTEXT + 1}, must be at most {CONTEXT}" in error.refusal.problem


def test_invariant_5_a_text_that_cannot_fit_the_model_is_refused_by_its_bytes(wire: Wire) -> None:
    text = "x" * 1_010_000
    for inputs in ({"text_input": text}, {"messages": json.dumps([{"role": "user", "content": text}])}):
        error = refused(wire, **inputs)
        assert error.refusal.field == next(iter(inputs))
        assert re.match(r"101\d{4} bytes, must be at most \d{6}: the model takes", error.refusal.problem)


def test_a_short_request_does_not_wait_for_the_long_prompts_before_it(small: Server) -> None:
    """They are some 0.6 MB each, few enough bytes to be encoded and too many tokens for the context."""
    with ThreadPoolExecutor(8) as pool, GrpcWire(small.address) as wire:
        prompts = [f"{number} {'the fox ' * 80_000}" for number in range(8)]
        long = [pool.submit(partial(_prompt_refused, small, prompt)) for prompt in prompts]
        # Once one is refused, the others are on their way or wait.
        next(as_completed(long))
        ask(wire, PROMPT, max_tokens=1)
        waited = [future for future in long if not future.done()]
        assert waited, "it was answered behind all of the long ones"
        for future in long:
            assert re.match(rf"16\d{{4}} tokens, must be at most {CONTEXT - 1} ", future.result())


def _prompt_refused(server: Server, prompt: str) -> str:
    with GrpcWire(server.address) as wire:
        return refused(wire, text_input=prompt).refusal.problem


def test_invariant_5_an_answer_ends_where_the_context_does(small: Server) -> None:
    with GrpcWire(small.address) as wire:
        prompt = "word " * (CONTEXT - 20)
        answer = ask(wire, prompt, max_tokens=CONTEXT, ignore_eos=True, return_num_input_tokens=True)
    assert answer.finish == "length"
    assert answer.tokens + (answer.replies[0].input_tokens or 0) == CONTEXT


def test_invariant_7_bad_requests_hurt_no_other(int8: Server) -> None:
    """Good streams among refusals, disconnects and deadlines give what they give alone."""

    def good(number: int) -> str:
        with WIRES[("http", "grpc")[number % 2]](int8.address) as wire:
            return ask(wire, f"{number} bottles of beer on the wall,", max_tokens=32, stream=True).text

    alone = [good(number) for number in range(8)]
    outcomes = at_once([partial(good, n) for n in range(8)] + [partial(_bad, int8, n) for n in range(24)])
    assert outcomes[:8] == alone
    int8.wait_idle()


def _bad(server: Server, number: int) -> str:
    kind = ("http", "grpc")[number % 2]
    faults: tuple[Callable[[], object], ...] = (
        lambda: refused(WIRES[kind](server.address), text_input="", stream=True),
        lambda: refused(WIRES[kind](server.address), text_input="x " * 5000),
        lambda: leave_after(server.address, kind, 1, **LONG),
        lambda: refused(WIRES[kind](server.address), **LONG, ignore_eos=True, timeout=100_000),
        lambda: refused(WIRES[kind](server.address), messages="[[["),
        lambda: HttpWire(server.address).post("generate", b"\xff{"),
    )
    faults[number % len(faults)]()
    return ""
