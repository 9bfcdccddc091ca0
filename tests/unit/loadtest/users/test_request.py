from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halimede.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    HalimedeError,
    InvalidArgument,
    ProtocolError,
    ServerError,
    Unavailable,
)
from halimede.results import Chunk
from halimede.wire import proto
from loadtest.measure.record import decode, encode
from loadtest.traffic.profile import Bad, Protocol, Task
from loadtest.users.request import INCOMPLETE, Tape, ask_of, body_of, error_class, message_of, phase_of
from tests.unit.loadtest.users.planned import bads, planned, profile, protocols, tasks

FINAL = Chunk(" end", "length", 20, 1)
numbers = st.lists(st.integers(0, 4), max_size=8)
gaps = st.lists(st.floats(0, 2), min_size=8, max_size=8)


def tape(protocol: Protocol = Protocol.GRPC, bad: Bad | None = None, leave: int | None = None) -> Tape:
    plan = planned(protocol=protocol, bad=bad, disconnect_after_tokens=leave)
    return Tape(plan, "smollm2", 1.0, "measure")


@given(protocols, numbers, gaps, st.booleans())
def test_a_record_tells_the_tokens_that_came_and_when(
    protocol: Protocol, tokens: list[int], waits: list[float], complete: bool
) -> None:
    taken, now_s = tape(protocol), 1.25
    taken.sent(now_s)
    for count, wait_s in zip(tokens, waits, strict=False):
        now_s += wait_s
        taken.take(Chunk("x", None, 20, count), now_s)
    if complete:
        taken.take(FINAL, now_s + 1)
    record = taken.record(now_s + 3, None)
    assert decode(encode(record)) == record
    assert record.tokens_out == sum(tokens) + complete
    assert record.lag_s == 0.25
    assert (record.finish_reason, record.error) == (("length", None) if complete else (None, INCOMPLETE))
    assert record.end_s == now_s + (1 if complete else 3)
    streamed = protocol is not Protocol.UNARY
    assert sum(count for _, count in record.chunks) == (record.tokens_out if streamed else 0)
    assert record.first_s == (record.chunks[0][0] if record.chunks else None)


def test_what_comes_after_the_last_chunk_is_not_latency() -> None:
    taken = tape()
    taken.sent(1.0)
    taken.take(FINAL, 2.0)
    assert taken.record(9.0, None).e2e_s == 1.0


@given(st.integers(1, 10), st.integers(1, 4))
def test_a_planned_disconnect_is_due_once_enough_came_and_is_no_error(enough: int, size: int) -> None:
    taken = tape(leave=enough)
    taken.sent(1.0)
    now_s = 1.0
    while not taken.leaves:
        now_s += 1
        taken.take(Chunk("x", None, 20, size), now_s)
    record = taken.record(now_s + 5, None)
    assert enough <= record.tokens_out < enough + size
    assert (record.error, record.finish_reason, record.expected) == (None, None, True)
    assert record.end_s == now_s


def test_an_answer_shorter_than_the_planned_disconnect_is_complete() -> None:
    taken = tape(leave=50)
    taken.sent(1.0)
    taken.take(FINAL, 2.0)
    assert not taken.leaves
    record = taken.record(2.0, None)
    assert record.is_complete
    assert record.expected


@pytest.mark.parametrize(
    ("bad", "error", "expected"),
    [
        (None, None, True),
        (None, "INVALID_ARG", False),
        (None, "UNAVAILABLE", False),
        (Bad.EMPTY, "INVALID_ARG", True),
        (Bad.EMPTY, "UNAVAILABLE", False),
        (Bad.EMPTY, "connection", False),
        (Bad.EMPTY, None, False),
    ],
)
def test_only_the_refusal_of_a_bad_request_is_an_expected_error(
    bad: Bad | None, error: str | None, expected: bool
) -> None:
    taken = tape(bad=bad)
    taken.sent(1.0)
    if error is None:
        taken.take(FINAL, 2.0)
    assert taken.record(2.0, error).expected is expected


def test_a_request_that_was_never_sent_counts_the_wait_as_lag() -> None:
    record = tape().record(4.0, "not_sent")
    assert (record.lag_s, record.e2e_s, record.first_s, record.expected) == (3.0, 3.0, None, False)


@given(st.floats(0, 30))
def test_phases_go_by_the_intended_time(intended_s: float) -> None:
    wanted = "warmup" if intended_s < 2 else "measure" if intended_s < 12 else "drain"
    assert phase_of(profile(duration_s=10), intended_s) == wanted
    assert phase_of(replace(profile(), warmup_s=0.0), 0.0) == "measure"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Unavailable("full"), "UNAVAILABLE"),
        (InvalidArgument.of("a", "b", "c"), "INVALID_ARG"),
        (DeadlineExceeded("late"), "DEADLINE_EXCEEDED"),
        (ServerError("odd", "HTTP_418"), "HTTP_418"),
        (ConnectionFailed("nobody"), "connection"),
        (ConnectionLost("cut"), "connection_lost"),
        (ProtocolError("what"), "protocol"),
    ],
)
def test_errors_have_classes(error: HalimedeError, name: str) -> None:
    assert error_class(error) == name


@given(protocols, tasks, bads)
def test_http_and_grpc_carry_the_same_request(protocol: Protocol, task: Task, bad: Bad | None) -> None:
    ask = ask_of(planned(protocol=protocol, task=task, bad=bad), "some words", "smollm2")
    message = message_of(ask)
    assert message.model_name == "smollm2"
    names = {tensor.name for tensor in message.inputs}
    assert ("text_input" in names) + ("messages" in names) == 1
    if bad is Bad.NOT_JSON:
        (text,) = (t.contents.bytes_contents[0] for t in message.inputs if t.name == "messages")
        for broken in (text, body_of(ask)):
            assert not _is_json(broken)
    else:
        assert message == proto.encode(ask.request)
        assert names < set(json.loads(body_of(ask)))


@given(protocols, tasks)
def test_a_good_request_asks_for_the_tokens_of_the_plan(protocol: Protocol, task: Task) -> None:
    body = json.loads(body_of(ask_of(planned(protocol=protocol, task=task), "some words", "smollm2")))
    assert body["max_tokens"] == 8
    assert body["ignore_eos"] is True
    assert body["stream"] is (protocol is not Protocol.UNARY)
    asked = body["text_input"] if task is not Task.CHAT else json.loads(body["messages"])[0]["content"]
    assert asked == "some words"


def test_an_empty_chat_has_no_template_around_it() -> None:
    body = json.loads(body_of(ask_of(planned(bad=Bad.EMPTY), "", "smollm2")))
    assert body["text_input"] == ""
    assert "messages" not in body


def test_a_bad_temperature_is_below_what_any_server_takes() -> None:
    body = json.loads(body_of(ask_of(planned(bad=Bad.BAD_TEMPERATURE), "words", "smollm2")))
    assert body["temperature"] < 0


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
