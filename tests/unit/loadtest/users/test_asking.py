from __future__ import annotations

import json

from hypothesis import given

from halimede.wire import proto
from loadtest.traffic.profile import Bad, Protocol, Task
from loadtest.users.request import ask_of, body_of, message_of
from tests.unit.loadtest.users.planned import bads, planned, protocols, tasks


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
