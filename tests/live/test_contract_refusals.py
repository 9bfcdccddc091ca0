"""Every bad input is an error that names the field, the value and the limit; the next request is fine."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from tests.live.wire import Wire, ask, refused
from tests.live.wire_grpc import GrpcWire
from tests.live.wire_http import HttpWire

pytestmark = [pytest.mark.contract, pytest.mark.e2e]

PROMPT = "The capital of France is"
USER = [{"role": "user", "content": "Hi"}]


def _good(**inputs: Any) -> dict[str, Any]:
    return {"text_input": PROMPT, **inputs}


def _messages(value: object) -> dict[str, Any]:
    return {"messages": json.dumps(value)}


# inputs, the field that the error names, and what it says of it
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no prompt": ({"max_tokens": 3}, "text_input, messages", "neither is given"),
    "two prompts": (_good(**_messages(USER)), "text_input, messages", "both are given"),
    "empty prompt": ({"text_input": ""}, "text_input", "empty, must have at least 1"),
    "messages: not JSON": ({"messages": "[{"}, "messages", r"\[\{, not JSON"),
    "messages: no list": (_messages({"role": "user"}), "messages", "must be a JSON list of 1 to 1024"),
    "messages: none": (_messages([]), "messages", "must be a JSON list of 1 to 1024"),
    "messages: a string": (_messages(["Hi"]), "messages[0]", "Hi, must be an object with exactly"),
    "messages: a key too many": (
        _messages([*USER, {**USER[0], "name": "x"}]), "messages[1]", "exactly role and content",
    ),
    "messages: unknown role": (
        _messages([{"role": "tool", "content": ""}]), "messages[0].role", "tool, must be one of system, user",
    ),
    "messages: content no string": (
        _messages([{"role": "user", "content": 5}]), "messages[0].content", "5, must be a string",
    ),
    "messages: half a surrogate": (
        {"messages": '[{"role": "user", "content": "\\ud800"}]'}, "messages[0].content", "lone surrogate",
    ),
    "max_tokens 0": (_good(max_tokens=0), "max_tokens", "^0, must be a whole number of at least 1$"),
    "max_tokens negative": (_good(max_tokens=-5), "max_tokens", "-5, must be a whole number of at least 1"),
    "max_tokens over the context": (_good(max_tokens=10**6), "max_tokens", r"1000000, must be at most \d+"),
    "min_tokens over max_tokens": (
        _good(min_tokens=9, max_tokens=8), "min_tokens", "9, must not exceed max_tokens 8",
    ),
    "min_tokens negative": (_good(min_tokens=-1), "min_tokens", "-1, must be a whole number of at least 0"),
    "temperature negative": (_good(temperature=-0.5), "temperature", r"-0\.5, must be a number in \[0, 100"),
    "temperature NaN": (_good(temperature=math.nan), "temperature", r"nan, must be a number in \[0, 100\]"),
    "top_p 0": (_good(top_p=0.0), "top_p", r"0\.0, must be a number in \(0, 1\]"),
    "top_p over 1": (_good(top_p=1.5), "top_p", r"1\.5, must be a number in \(0, 1\]"),
    "top_p NaN": (_good(top_p=math.nan), "top_p", r"nan, must be a number in \(0, 1\]"),
    "min_p over 1": (_good(min_p=2.0), "min_p", r"2\.0, must be a number in \[0, 1\]"),
    "top_k negative": (_good(top_k=-1), "top_k", "-1, must be a whole number of at least 0"),
    "repetition_penalty 0": (
        _good(repetition_penalty=0.0), "repetition_penalty", r"0\.0, must be a number in \[0\.001, 10\]",
    ),
    "frequency_penalty": (_good(frequency_penalty=3.0), "frequency_penalty", r"3\.0, .* in \[-2, 2\]"),
    "presence_penalty": (_good(presence_penalty=-3.0), "presence_penalty", r"-3\.0, .* in \[-2, 2\]"),
    "num_logprobs": (_good(num_logprobs=21), "num_logprobs", r"21, must be a whole number in \[0, 20\]"),
    "logit_bias: not JSON": (_good(logit_bias="{5"), "logit_bias", r"\{5, not JSON"),
    "logit_bias: a list": (_good(logit_bias="[1]"), "logit_bias", "must be a JSON object"),
    "logit_bias: no id": (_good(logit_bias='{"x": 1}'), "logit_bias", r"token x, must be a token id in \[0"),
    "logit_bias: over the vocabulary": (_good(logit_bias='{"999999": 1}'), "logit_bias", "999999, must"),
    "logit_bias: too much": (_good(logit_bias='{"5": 101}'), "logit_bias", r"101, .* in \[-100, 100\]"),
    "stop_words: too many": (
        _good(stop_words=["x"] * 17), "stop_words", "17 words, must be at most 16",
    ),
    "stop_words: too long": (
        _good(stop_words=["a", "x" * 257]), "stop_words[1]", "257 bytes, must be 1 to 256",
    ),
    "stop_words: empty": (_good(stop_words=["a", ""]), "stop_words[1]", "0 bytes, must be 1 to 256"),
    "prompt over the context": (
        {"text_input": "word " * 5000}, "prompt", r"50\d\d tokens, must be at most \d+",
    ),
    "prompt over the bytes": (
        {"text_input": "x" * (2**20 + 1)}, "text_input", "1048577 bytes, must be at most 1048576",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_input_is_refused_by_name(wire: Wire, case: str) -> None:
    inputs, field, problem = BAD[case]
    for stream in (False, True):
        error = refused(wire, **inputs, stream=stream)
        assert error.status == (400 if wire.name == "http" else None)
        assert (error.refusal.code, error.refusal.field) == ("INVALID_ARG", field)
        assert re.search(problem, error.refusal.problem), error.refusal.problem
    assert ask(wire, PROMPT, max_tokens=2).tokens == 2


@pytest.mark.parametrize("key", ["max_token", "prompt", "n", "temprature"])
def test_an_unknown_key_is_refused_by_its_name(http_wire: HttpWire, key: str) -> None:
    error = refused(http_wire, **_good(**{key: 1}))
    assert (error.refusal.code, error.refusal.field) == ("INVALID_ARG", key)
    assert "unknown input, must be one of text_input, messages" in error.refusal.problem


def test_an_unknown_parameter_is_refused_by_its_name(grpc_wire: GrpcWire) -> None:
    request = grpc_wire.request(**_good())
    request.parameters["max_token"].int64_param = 1
    with pytest.raises(Exception, match="INVALID_ARG: max_token: unknown input"):
        list(grpc_wire.call([request]))


@pytest.mark.parametrize("timeout", ["soon", 1.5, True, -1, 2**64])
def test_an_invalid_timeout_is_refused(http_wire: HttpWire, timeout: object) -> None:
    error = refused(http_wire, **_good(timeout=timeout))
    assert (error.refusal.code, error.refusal.field) == ("INVALID_ARG", "timeout")
    assert "must be a whole number of microseconds" in error.refusal.problem


def test_invalid_utf8_is_refused(grpc_wire: GrpcWire, http_wire: HttpWire) -> None:
    fields = {"text_input": b"ab\xff", "messages": b"\xff", "stop_words": b"ok \xc3"}
    for name, value in fields.items():
        inputs = {name: [value]} if name != "stop_words" else _good(stop_words=[value])
        error = refused(grpc_wire, **inputs)
        assert error.refusal.field.startswith(name)
        assert "not UTF-8 at byte" in error.refusal.problem
    assert ask(grpc_wire, PROMPT, max_tokens=2).tokens == 2
    assert http_wire.post("generate", b'{"text_input": "ab\xff"}').status in {400, 500}
    assert ask(http_wire, PROMPT, max_tokens=2).tokens == 2


def test_the_limits_themselves_are_accepted(wire: Wire) -> None:
    for inputs in (
        {"temperature": 100.0, "seed": 0},
        {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "temperature": 1.0},
        {"repetition_penalty": 10.0},
        {"frequency_penalty": -2.0, "presence_penalty": 2.0},
        {"num_logprobs": 20},
        {"min_tokens": 2},
        {"logit_bias": "{}"},
        {"timeout": 0},
    ):
        assert 1 <= ask(wire, PROMPT, **{"max_tokens": 2, **inputs}).tokens <= 2


def test_an_error_shows_no_more_than_a_piece_of_what_was_sent(wire: Wire) -> None:
    error = refused(wire, messages="x" * 10_000)
    assert len(error.text) < 300
