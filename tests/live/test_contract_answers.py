"""The shape of an answer, unary and streamed, over both protocols: what any client may rely on."""

from __future__ import annotations

import json
import math

import pytest

from tests.live.wire import Answer, Wire, ask
from tests.live.wire_grpc import GrpcWire
from tests.live.wire_http import HttpWire

pytestmark = [pytest.mark.contract, pytest.mark.e2e]

PROMPT = "The capital of France is"
TEXTS = {
    "emoji": "😀 🚀 🌍 😀 🚀 🌍 😀 🚀",
    "cjk": "春眠不觉晓，处处闻啼鸟。春眠不觉晓，",
    "right-to-left": "مرحبا مرحبا مرحبا",
    "code": "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n",
    "leading spaces": "    indented\n        more\n    indented\n        more\n",
}
# Tokens that a vocabulary begins with: among them every single byte, so that characters fall apart.
FIRST_TOKENS = json.dumps({str(token): 100 for token in range(1024)})


def test_plain_scalars_on_generate(http_wire: HttpWire) -> None:
    body = {"text_input": PROMPT, "max_tokens": 4, "temperature": 0}
    response = http_wire.post("generate", json.dumps(body).encode())
    answer = json.loads(response.body)
    assert (response.status, response.kind) == (200, "application/json")
    assert answer["text_output"]
    assert answer["finish_reason"] == "length"
    assert answer["model_name"]
    assert not {"num_input_tokens", "num_output_tokens", "logprobs"} & set(answer)


def test_plain_scalars_on_generate_stream(http_wire: HttpWire) -> None:
    body = {"text_input": PROMPT, "max_tokens": 4, "temperature": 0, "stream": True}
    response = http_wire.post("generate_stream", json.dumps(body).encode())
    assert (response.status, response.kind) == (200, "text/event-stream")
    *events, rest = response.body.split("\n\n")
    assert not rest.strip()
    answers = [json.loads(event.strip().removeprefix("data: ")) for event in events if event.strip()]
    assert [answer["finish_reason"] for answer in answers if answer["finish_reason"]] == ["length"]
    assert answers[-1]["finish_reason"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_tensors_of_tritons_openai_frontend(grpc_wire: GrpcWire, stream: bool) -> None:
    """Its requests, with the defaults of its schema; it wants exactly one string for each response."""
    replies = list(
        grpc_wire.open(
            text_input=PROMPT,
            stream=stream,
            max_tokens=16,
            stop_words=["\n\n"],
            top_p=1.0,
            temperature=1.0,
            frequency_penalty=0.0,
            presence_penalty=0.0,
            seed=7,
            return_num_input_tokens=True,
            return_num_output_tokens=True,
        )
    )
    assert "".join(reply.text for reply in replies)
    assert {reply.input_tokens for reply in replies} == {5}
    assert 1 <= sum(reply.output_tokens or 0 for reply in replies) <= 16
    assert stream or len(replies) == 1


def test_the_prompt_is_the_only_input_that_is_needed(wire: Wire) -> None:
    (reply,) = wire.open(messages=json.dumps([{"role": "user", "content": "Say hi."}]))
    assert reply.text
    assert reply.finish == "stop"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_joined_stream_is_the_unary_answer(wire: Wire, text: str) -> None:
    unary = ask(wire, text, max_tokens=24, num_logprobs=0)
    streamed = ask(wire, text, max_tokens=24, num_logprobs=0, stream=True)
    assert len(unary.replies) == 1
    assert len(streamed.replies) > 1
    assert (streamed.text, streamed.finish) == (unary.text, unary.finish)
    assert streamed.logprobs == unary.logprobs
    assert unary.text == _spelt(unary)


@pytest.mark.parametrize("seed", range(4))
def test_the_joined_stream_is_the_unary_answer_for_random_bytes(wire: Wire, seed: int) -> None:
    inputs = {"temperature": 10.0, "logit_bias": FIRST_TOKENS, "ignore_eos": True, "seed": seed}
    unary = ask(wire, "Bytes:", max_tokens=60, num_logprobs=0, **inputs)
    streamed = ask(wire, "Bytes:", max_tokens=60, stream=True, **inputs)
    assert streamed.text == unary.text
    assert "\ufffd" in unary.text
    assert unary.text == _spelt(unary)


def _spelt(answer: Answer) -> str:
    """The text that the bytes of its tokens make; the last character may be cut off."""
    return b"".join(bytes(entry["bytes"]) for entry in answer.logprobs).decode("utf-8", "replace")


def test_both_protocols_give_the_same_answer(http_wire: HttpWire, grpc_wire: GrpcWire) -> None:
    for text in TEXTS.values():
        assert ask(http_wire, text).text == ask(grpc_wire, text).text


def test_a_stream_has_a_response_for_each_step(wire: Wire) -> None:
    answer = ask(wire, PROMPT, max_tokens=32, stream=True, ignore_eos=True)
    *earlier, last = answer.replies
    assert [reply.finish for reply in earlier] == [""] * len(earlier)
    assert last.finish == "length"
    assert answer.tokens == 32
    # A sender that falls behind joins steps; what has no token is a heartbeat.
    assert all(reply.output_tokens or not reply.text for reply in earlier)
    assert len(answer.replies) > 4


def test_without_stream_there_is_one_response_even_where_streams_are_read(http_wire: HttpWire) -> None:
    body = {"text_input": PROMPT, "max_tokens": 8}
    response = http_wire.post("generate_stream", json.dumps(body).encode())
    assert response.body.count("data: ") == 1


def test_counts_are_sent_when_asked_for(wire: Wire) -> None:
    (without,) = wire.open(text_input=PROMPT, max_tokens=4)
    assert (without.input_tokens, without.output_tokens) == (None, None)
    (counted,) = wire.open(
        text_input=PROMPT, max_tokens=4, return_num_input_tokens=True, return_num_output_tokens=True
    )
    assert (counted.input_tokens, counted.output_tokens) == (5, 4)


def test_logprobs_tell_each_token_and_its_alternatives(wire: Wire) -> None:
    answer = ask(wire, PROMPT, max_tokens=6, num_logprobs=3)
    assert len(answer.logprobs) == answer.tokens == 6
    assert "".join(entry["token"] for entry in answer.logprobs) == answer.text
    for entry in answer.logprobs:
        assert set(entry) == {"id", "token", "bytes", "logprob", "top"}
        best = [alternative["logprob"] for alternative in entry["top"]]
        assert best == sorted(best, reverse=True)
        assert len(best) == 3
        assert sum(map(math.exp, best)) <= 1 + 1e-6
        # Greedy: the token is the likeliest of all.
        assert entry["top"][0] == {key: entry[key] for key in ("id", "token", "bytes", "logprob")}


def test_logprobs_without_alternatives(wire: Wire) -> None:
    answer = ask(wire, PROMPT, max_tokens=3, num_logprobs=0)
    assert [entry["top"] for entry in answer.logprobs] == [[], [], []]


def test_two_requests_in_one_rpc_are_answered_apart(grpc_wire: GrpcWire) -> None:
    asked = [
        grpc_wire.request(text_input=text, max_tokens=4, temperature=0.0) for text in (PROMPT, "1, 2, 3,")
    ]
    texts = sorted(reply.text for reply in grpc_wire.call(asked))
    assert texts == sorted(ask(grpc_wire, text, max_tokens=4).text for text in (PROMPT, "1, 2, 3,"))


def test_the_id_of_a_request_comes_back(http_wire: HttpWire) -> None:
    body = {"text_input": PROMPT, "max_tokens": 2, "id": "a-request"}
    assert json.loads(http_wire.post("generate", json.dumps(body).encode()).body)["id"] == "a-request"
