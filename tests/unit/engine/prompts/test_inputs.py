from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.contract import EarlyStoppingChoice, TokenizerSettings
from engine.core.errors import InvalidArgument, SettingsError
from engine.core.request import Request, Sampling
from engine.edge.settings import read_tokenizer_settings
from engine.prompts.chat import Message
from engine.prompts.inputs import FIELDS, FLAGS, Inputs, parse_inputs, read_parameters
from tests.contract import INPUTS, example

LIMITS = TokenizerSettings(default_max_tokens=16, max_stop_words=2, max_stop_bytes=8, max_input_bytes=100)
DEFAULTS: dict[str, Any] = {"temperature": 0.5, "top_k": 40}
VOCAB = 50


def parse(parameters: dict[str, Any] | None = None, **values: Any) -> Inputs:
    return parse_inputs(values, parameters or {}, LIMITS, DEFAULTS, VOCAB)


def refused(parameters: dict[str, Any] | None = None, **values: Any) -> str:
    with pytest.raises(InvalidArgument) as caught:
        parse(parameters, **values)
    return str(caught.value)


def test_a_bare_prompt_takes_the_models_defaults() -> None:
    inputs = parse(text_input=b"Hello")
    assert inputs.text == "Hello"
    assert inputs.messages is None
    assert inputs.sampling == Sampling(16, temperature=0.5, top_k=40)
    assert not inputs.stream
    assert inputs.timeout_us is None


def test_the_limit_of_answers_of_the_model_config_comes_before_its_default() -> None:
    assert parse_inputs({"text_input": b"x"}, {}, LIMITS, {"max_tokens": 3}, VOCAB).sampling.max_tokens == 3


SEARCH: dict[str, Any] = {"num_beams": 4, "early_stopping": "true", "length_penalty": 2.0, "min_tokens": 9}


def with_search(**values: Any) -> Sampling:
    return parse_inputs({"text_input": b"x"} | values, {}, LIMITS, SEARCH, VOCAB).sampling


def test_the_models_own_search_is_the_default() -> None:
    sampling = with_search()
    assert (sampling.num_beams, sampling.length_penalty, sampling.min_tokens) == (4, 2.0, 9)
    assert sampling.early_stopping is EarlyStoppingChoice.TRUE


@pytest.mark.parametrize("values", [{"temperature": 0.5}, {"num_logprobs": 2}, {"stop_words": [b"x"]}])
def test_the_models_own_search_gives_way_to_what_it_cannot_do(values: dict[str, Any]) -> None:
    assert with_search(**values).num_beams == 1
    with pytest.raises(InvalidArgument, match=r"with num_beams 2$"):
        with_search(**values, num_beams=2)


def test_the_models_own_search_gives_way_to_a_stream() -> None:
    assert with_search(stream=True).num_beams == 1
    named = with_search(stream=True, num_beams=2)
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: stream: true, must be false with num_beams 2$"):
        Request((), named, stream=True)


def test_a_search_that_is_asked_for_does_not_sample() -> None:
    assert parse(text_input=b"x", num_beams=3).sampling.temperature == 0
    assert refused(text_input=b"x", num_beams=3, temperature=0.5) == (
        "INVALID_ARG: temperature: 0.5, must be 0 with num_beams 3"
    )


def test_the_models_own_shortest_answer_gives_way_to_the_longest() -> None:
    assert with_search(max_tokens=5).min_tokens == 5
    assert with_search(max_tokens=5, min_tokens=2).min_tokens == 2


@pytest.mark.parametrize("text", [b"", b"True", b"yes", b"1"])
def test_an_unknown_early_stopping_is_refused(text: bytes) -> None:
    assert refused(text_input=b"x", early_stopping=text).endswith(", must be one of false, true, never")


def test_only_without_max_tokens_is_an_answer_open_ended() -> None:
    assert parse(text_input=b"x").open_ended
    assert not parse(text_input=b"x", max_tokens=5).open_ended


def test_every_input_is_read() -> None:
    # One of the two prompts, and no search: it goes with nothing that draws.
    values = {name: sent(name) for name in FIELDS if name != "messages"} | {"num_beams": 1}
    inputs = parse(**values)
    for name in ("stream", "return_num_input_tokens", "return_num_output_tokens"):
        assert getattr(inputs, name) is True
    read = {name: getattr(inputs.sampling, name) for name in values if hasattr(Sampling, name)}
    assert read.keys() == {row["name"] for row in INPUTS.values() if row["part"] == "sampling"}
    assert read == {name: decoded(values[name]) for name in read} | {"logit_bias": ((3, -1.5),)}


def sent(name: str) -> Any:
    """As Triton hands the example over: texts as bytes."""
    value = example(name)
    if isinstance(value, list):
        return [text.encode() for text in value]
    return value.encode() if isinstance(value, str) else value


def decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(text.decode() for text in value)
    return value.decode() if isinstance(value, bytes) else value


def test_messages_are_read() -> None:
    text = json.dumps([{"role": "system", "content": ""}, {"role": "user", "content": "Hi\n"}])
    inputs = parse(messages=text.encode())
    assert inputs.text is None
    assert inputs.messages == (Message("system", ""), Message("user", "Hi\n"))


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [True, False])
def test_flags_are_read(name: str, value: bool) -> None:
    inputs = parse(None, text_input=b"x", **{name: value})
    source = inputs.sampling if name == "ignore_eos" else inputs
    assert getattr(source, name) is value


USER = {"role": "user", "content": "x"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "empty prompt": ({"text_input": b""}, "text_input: empty, must have at least 1 character"),
    "neither prompt": ({}, "text_input, messages: neither is given, must be one of them"),
    "both prompts": (
        {"text_input": b"x", "messages": json.dumps([USER]).encode()},
        "text_input, messages: both are given, must be one of them",
    ),
    "prompt not UTF-8": ({"text_input": b"abc\xff"}, "text_input: not UTF-8 at byte 3"),
    "prompt cut in a character": ({"text_input": b"\xe2\x82"}, "text_input: not UTF-8 at byte 0"),
    "surrogate in UTF-8": ({"text_input": b"\xed\xa0\x80"}, "text_input: not UTF-8 at byte 0"),
    "prompt too long": ({"text_input": b"x" * 101}, "text_input: 101 bytes, must be at most 100"),
    "messages too long": ({"messages": b"[" * 101}, "messages: 101 bytes, must be at most 100"),
    "messages not JSON": ({"messages": b"[{"}, "messages: [{, not JSON: "),
    "messages empty": ({"messages": b""}, "messages: '', not JSON: "),
    "messages not a list": ({"messages": b'{"a": 1}'}, 'messages: {"a": 1}, must be a JSON list of 1 to '),
    "no messages": ({"messages": b"[]"}, "messages: [], must be a JSON list of 1 to 1024 messages"),
    "messages not UTF-8": ({"messages": b"\xff"}, "messages: not UTF-8 at byte 0"),
    "max_tokens 0": ({"max_tokens": 0}, "max_tokens: 0, must be a whole number of at least 1"),
    "max_tokens negative": ({"max_tokens": -5}, "max_tokens: -5, must be a whole number of at least 1"),
    "temperature NaN": ({"temperature": math.nan}, "temperature: nan, must be a number in [0, 100]"),
    "temperature negative": ({"temperature": -0.5}, "temperature: -0.5, must be a number in [0, 100]"),
    "temperature infinite": ({"temperature": math.inf}, "temperature: inf, must be a number in [0, 100]"),
    "top_p 0": ({"top_p": 0.0}, "top_p: 0.0, must be a number in (0, 1]"),
    "top_p over 1": ({"top_p": 1.5}, "top_p: 1.5, must be a number in (0, 1]"),
    "min_p over 1": ({"min_p": 1.5}, "min_p: 1.5, must be a number in [0, 1]"),
    "top_k negative": ({"top_k": -1}, "top_k: -1, must be a whole number of at least 0"),
    "logprobs": ({"num_logprobs": 21}, "num_logprobs: 21, must be a whole number in [0, 20]"),
    "min over max": (
        {"min_tokens": 4, "max_tokens": 3},
        "min_tokens: 4, must not exceed max_tokens 3",
    ),
    "many stop words": ({"stop_words": [b"a"] * 3}, "stop_words: 3 words, must be at most 2"),
    "long stop word": ({"stop_words": [b"a", b"b" * 9]}, "stop_words[1]: 9 bytes, must be 1 to 8"),
    "empty stop word": ({"stop_words": [b""]}, "stop_words[0]: 0 bytes, must be 1 to 8"),
    "stop word not UTF-8": ({"stop_words": [b"a\xff"]}, "stop_words[0]: not UTF-8 at byte 1"),
    "bias not JSON": ({"logit_bias": b"1:2"}, "logit_bias: 1:2, not JSON: "),
    "bias token": ({"logit_bias": b'{"50": 1}'}, "logit_bias: token 50, must be a token id in [0, 49]"),
    "bias value": ({"logit_bias": b'{"5": 101}'}, "logit_bias: 101, must be a number in [-100, 100]"),
    "bias not UTF-8": ({"logit_bias": b"\xff"}, "logit_bias: not UTF-8 at byte 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_names_field_value_and_limit(name: str) -> None:
    values, problem = BAD[name]
    if name != "neither prompt" and "messages" not in values:
        values = {"text_input": b"x"} | values
    assert refused(**values).startswith(f"INVALID_ARG: {problem}")


BAD_MESSAGES: list[tuple[list[Any], str]] = [
    ([USER, 3], "messages[1]: 3, must be an object with exactly role and content"),
    ([[USER]], "messages[0]: [{"),
    ([{"role": "user"}], "messages[0]: {'role': 'user'}, must be an object with exactly"),
    ([USER | {"name": "x"}], "messages[0]: {"),
    ([USER, USER | {"role": "tool"}], "messages[1].role: tool, must be one of system, user, assistant"),
    ([USER | {"role": None}], "messages[0].role: None, must be one of"),
    ([USER | {"role": ["user"]}], "messages[0].role: ['user'], must be one of"),
    ([USER | {"content": None}], "messages[0].content: None, must be a string"),
    ([USER | {"content": [{"type": "text"}]}], "messages[0].content: [{'type': 'text'}], must be a string"),
    ([USER | {"content": "a\ud800"}], "messages[0].content: has a lone surrogate, must be Unicode text"),
]


@pytest.mark.parametrize(("messages", "problem"), BAD_MESSAGES)
def test_bad_messages_name_place_and_field(messages: list[Any], problem: str) -> None:
    assert refused(messages=json.dumps(messages).encode()).startswith(f"INVALID_ARG: {problem}")


def test_messages_nested_too_deep_are_refused() -> None:
    """Also those of a depth at which the JSON is just still read."""
    limits = TokenizerSettings(max_input_bytes=1 << 20)
    closed = [b"[" * depth + b"]" * depth for depth in range(300, 1000, 7)]
    for text in (b"[" * 100_000, b'[{"role":' * 50_000, *closed):
        with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: messages"):
            parse_inputs({"messages": text}, {}, limits, {}, VOCAB)


@pytest.mark.parametrize("name", ["max_token", "Temperature", "text", "", "logprobs", "x\ny"])
def test_an_unknown_input_is_refused_by_name(name: str) -> None:
    """Triton makes a parameter of every JSON key that is no input."""
    error = refused({name: 5}, text_input=b"x")
    shown = name if name.isprintable() and name else repr(name)
    assert error == f"INVALID_ARG: {shown}: unknown input, must be one of {', '.join(FIELDS)}"


def test_what_triton_itself_adds_is_let_through() -> None:
    parameters = {"id": "7", "priority": 1, "triton_enable_empty_final_response": True, "timeout": 5}
    assert parse(parameters, text_input=b"x").timeout_us == 5


@pytest.mark.parametrize("timeout", [-1, 1.5, "5", True, [1]])
def test_a_wrong_timeout_is_refused(timeout: object) -> None:
    error = refused({"timeout": timeout}, text_input=b"x")
    assert error.startswith("INVALID_ARG: timeout: ")
    assert error.endswith("must be a whole number of microseconds, 0 for none")


def test_a_timeout_of_0_is_none() -> None:
    assert parse({"timeout": 0}, text_input=b"x").timeout_us is None


def test_parameters_arrive_as_json_or_not_at_all() -> None:
    assert read_parameters("") == {}
    assert read_parameters('{"timeout": 5}') == {"timeout": 5}


numbers = st.integers() | st.floats()
bias_tables = st.dictionaries(st.text(), numbers).map(json.dumps).map(str.encode)
anything = st.fixed_dictionaries(
    {},
    optional={
        "text_input": st.binary(max_size=120),
        "messages": st.binary(max_size=40) | st.just(json.dumps([USER]).encode()),
        "logit_bias": st.binary(max_size=20) | bias_tables,
        "stop_words": st.lists(st.binary(max_size=10), max_size=3),
        "max_tokens": st.integers(-(2**31), 2**31 - 1),
        "min_tokens": st.integers(-(2**31), 2**31 - 1),
        "top_k": st.integers(-(2**31), 2**31 - 1),
        "num_logprobs": st.integers(-(2**31), 2**31 - 1),
        "seed": st.integers(0, 2**64 - 1),
        "temperature": st.floats(width=32),
        "top_p": st.floats(width=32),
        "min_p": st.floats(width=32),
        "repetition_penalty": st.floats(width=32),
        "frequency_penalty": st.floats(width=32),
        "presence_penalty": st.floats(width=32),
        "stream": st.booleans(),
        "ignore_eos": st.booleans(),
    },
)  # fmt: skip


@given(anything, st.dictionaries(st.text(), numbers | st.text(), max_size=2))
def test_whatever_comes_is_read_or_refused(values: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Nothing else may be raised: it would hurt the other requests of the batch."""
    try:
        inputs = parse(parameters, **values)
    except InvalidArgument as error:
        text = str(error)
    else:
        assert (inputs.text is None) != (inputs.messages is None)
        return
    assert text.startswith("INVALID_ARG: ")
    assert text.isprintable()


def test_a_number_of_triton_is_a_float32() -> None:
    """The ends of the limits must be reached with what a client's number becomes on its way."""
    ends = {"repetition_penalty": 0.001, "temperature": 100, "frequency_penalty": -2, "min_p": 1}
    for name, end in ends.items():
        value = struct.unpack("f", struct.pack("f", end))[0]
        assert getattr(parse(None, text_input=b"x", **{name: value}).sampling, name) == value


def test_limits_are_read_from_the_config() -> None:
    limits = read_tokenizer_settings({"max_stop_words": "3", "slots": "16", "default_max_tokens": "9"})
    assert limits == TokenizerSettings(default_max_tokens=9, max_stop_words=3)
    assert read_tokenizer_settings({}) == TokenizerSettings()


@pytest.mark.parametrize("text", ["0", "-1", "", "many", "1.5", "²", "9" * 5000])
def test_a_wrong_limit_in_the_config_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: max_stop_bytes: .*, must be a whole number"):
        read_tokenizer_settings({"max_stop_bytes": text})
