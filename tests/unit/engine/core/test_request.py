from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.contract import LIMITS
from engine.core.errors import (
    InvalidArgument,
)
from engine.core.limits import MAX_UINT64
from engine.core.request import Request, Sampling, parse_logit_bias, sampling_from

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
biases = st.lists(st.tuples(st.integers(0, 9), st.floats(-100, 100)), max_size=4, unique_by=lambda b: b[0])
samplings = st.builds(
    Sampling,
    max_tokens=st.integers(10, 2**31 - 1),
    min_tokens=st.integers(0, 10),
    temperature=st.floats(0, 100),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    top_k=st.integers(0, 2**31 - 1),
    repetition_penalty=st.floats(0.001, 10),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    seed=st.none() | st.integers(0, MAX_UINT64),
    stop_words=st.lists(words, max_size=3).map(tuple),
    logit_bias=biases.map(tuple),
    ignore_eos=st.booleans(),
    num_logprobs=st.none() | st.integers(0, 20),
)
requests = st.builds(
    Request,
    prompt=st.lists(st.integers(0, 9), min_size=1, max_size=5).map(tuple),
    sampling=samplings,
    stream=st.booleans(),
    arrival_ns=st.integers(0, 2**62),
    deadline_ns=st.none() | st.integers(0, 2**64),
    timeout_us=st.none() | st.integers(0, 2**62),
    returns=st.lists(st.sampled_from(["num_input_tokens", "logprobs"])).map(tuple),
    ensemble=st.booleans(),
)


@given(requests)
def test_a_request_survives_its_json(request: Request) -> None:
    assert Request.from_json(request.to_json(), request.prompt) == request


def test_a_request_of_another_client_may_leave_out_what_has_a_default() -> None:
    request = Request.from_json('{"sampling":{"max_tokens":3}}', (1,))
    assert request == Request((1,), Sampling(3))


def envelope(**changes: Any) -> str:
    return json.dumps({"sampling": {"max_tokens": 3}} | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "3",
        "null",
        "{}",
        '{"sampling":3}',
        '{"sampling":null}',
        '{"sampling":{}}',
        '{"sampling":[1]}',
        '{"sampling":{"max_tokens":3},"prompt":[1]}',
        '{"sampling":{"max_tokens":3,"unknown":1}}',
        "[" * 100_000,
        '{"a":' * 50_000,
        envelope(sampling={"max_tokens": 3, "stop_words": 5}),
        envelope(sampling={"max_tokens": 3, "logit_bias": [5]}),
        envelope(sampling={"max_tokens": 3, "logit_bias": {"5": 1}}),
    ],
)
def test_an_invalid_request_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: (request|max_tokens): "):
        Request.from_json(text, (1,))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", "yes"),
        ("stream", None),
        ("arrival_ns", "now"),
        ("arrival_ns", None),
        ("arrival_ns", 1.5),
        ("deadline_ns", "soon"),
        ("timeout_us", [1]),
        ("returns", [1]),
        ("returns", 1),
        ("ensemble", 2),
        ("sampling.max_tokens", None),
        ("sampling.max_tokens", "3"),
        ("sampling.max_tokens", 0),
        ("sampling.temperature", None),
        ("sampling.temperature", "hot"),
        ("sampling.temperature", math.nan),
        ("sampling.ignore_eos", 1),
        ("sampling.seed", 1.0),
        ("sampling.stop_words", [1]),
        ("sampling.stop_words", [""]),
        ("sampling.stop_words", ["\ud800"]),
        ("sampling.logit_bias", [[-1, 1.0]]),
        ("sampling.logit_bias", [["1", 1.0]]),
        ("sampling.logit_bias", [[1, 101]]),
        ("sampling.logit_bias", [[1, None]]),
        ("sampling.logit_bias", [[1, 2, 3]]),
    ],
)
def test_a_field_of_a_wrong_type_or_value_is_refused(field: str, value: object) -> None:
    """The engine step can be called without the tokenizer step: nothing wrong may reach the loop."""
    part, _, name = field.rpartition(".")
    text = envelope(sampling={"max_tokens": 3} | {name: value}) if part else envelope(**{name: value})
    with pytest.raises(InvalidArgument, match=rf"^INVALID_ARG: ({name}|request)\b"):
        Request.from_json(text, (1,))


ENDS: list[tuple[str, float, bool]] = [
    ("max_tokens", 1, True),
    ("max_tokens", 0, False),
    ("max_tokens", -1, False),
    ("max_tokens", 2**31 - 1, True),
    ("max_tokens", 2**31, False),
    ("min_tokens", 0, True),
    ("min_tokens", -1, False),
    ("temperature", 0, True),
    ("temperature", 100.0, True),
    ("temperature", 100.1, False),
    ("temperature", -0.1, False),
    ("temperature", math.nan, False),
    ("temperature", math.inf, False),
    ("top_p", 0.0, False),
    ("top_p", 1e-9, True),
    ("top_p", 1.0, True),
    ("top_p", 1.01, False),
    ("top_p", math.nan, False),
    ("min_p", 0.0, True),
    ("min_p", 1.0, True),
    ("min_p", 1.5, False),
    ("top_k", 0, True),
    ("top_k", -1, False),
    ("repetition_penalty", 0.0, False),
    ("repetition_penalty", 0.001, True),
    ("repetition_penalty", 10, True),
    ("repetition_penalty", 10.5, False),
    ("frequency_penalty", -2.0, True),
    ("frequency_penalty", 2.1, False),
    ("presence_penalty", 2.0, True),
    ("presence_penalty", -2.1, False),
    ("seed", 0, True),
    ("seed", -1, False),
    ("seed", MAX_UINT64, True),
    ("seed", MAX_UINT64 - 1, True),
    ("seed", MAX_UINT64 + 1, False),
    ("num_logprobs", 20, True),
    ("num_logprobs", 21, False),
]


@pytest.mark.parametrize(("field", "value", "good"), ENDS)
def test_the_ends_of_every_limit(field: str, value: float, good: bool) -> None:
    fields: dict[str, Any] = {"max_tokens": 5} | {field: value}
    if good:
        assert getattr(Sampling(**fields), field) == value
        return
    with pytest.raises(InvalidArgument) as caught:
        Sampling(**fields)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"INVALID_ARG: {field}: {value}, must be a")
    assert str(caught.value).endswith(f" {LIMITS[field]}")


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("value", [True, "1", [1], b"1"])
def test_a_value_of_another_type_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=rf"^INVALID_ARG: {field}: .*, must be a (whole )?number$"):
        Sampling(**{"max_tokens": 5, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["max_tokens", "seed", "top_k", "num_logprobs"])
def test_a_whole_number_is_no_float(field: str) -> None:
    with pytest.raises(InvalidArgument, match=r"1\.0, must be a whole number"):
        Sampling(**{"max_tokens": 5, field: 1.0})  # type: ignore[arg-type]


def test_limits_read_as_intervals() -> None:
    assert str(LIMITS["top_p"]) == "in (0, 1]"
    assert str(LIMITS["seed"]) == "in [0, 18446744073709551615]"
    assert str(LIMITS["max_tokens"]) == "of at least 1"


def test_numbers_beyond_every_float_are_refused() -> None:
    for field in LIMITS:
        with pytest.raises(InvalidArgument):
            Sampling(**{"max_tokens": 5, field: 10**400})  # type: ignore[arg-type]


def test_min_tokens_must_not_exceed_max_tokens() -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: min_tokens: 6, must not exceed max_tokens 5$"):
        Sampling(max_tokens=5, min_tokens=6)


def test_greedy_is_temperature_0_or_one_token_to_choose_from() -> None:
    assert Sampling(1).greedy
    assert Sampling(1, temperature=1.0, top_k=1).greedy
    assert not Sampling(1, temperature=1.0).greedy


def test_the_clients_fields_come_before_the_models() -> None:
    defaults = {"max_tokens": 7, "temperature": 0.6, "top_p": 0.95}
    assert sampling_from({}, defaults) == Sampling(7, temperature=0.6, top_p=0.95)
    assert sampling_from({"temperature": 0}, defaults) == Sampling(7, top_p=0.95)
    assert sampling_from({"min_tokens": 9}, defaults).max_tokens == 9
    with pytest.raises(InvalidArgument, match="min_tokens: 9, must not exceed max_tokens 8"):
        sampling_from({"min_tokens": 9, "max_tokens": 8}, defaults)


def test_logit_bias_parses_to_sorted_pairs() -> None:
    assert parse_logit_bias('{"12": -3, "3": 0.5}', 100) == ((3, 0.5), (12, -3.0))
    assert parse_logit_bias("{}", 100) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("[1]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"100": 1}', r"token 100, must be a token id in \[0, 99\]"),
        ('{"-1": 1}', "token -1, must be"),
        ('{"x": 1}', "token x, must be"),
        ('{"": 1}', "token '', must be"),
        ('{"01": 1}', "token 01, must be"),
        ('{"²": 1}', "token ², must be"),
        ('{"' + "9" * 5000 + '": 1}', "token 9999.*…, must be"),
        ('{"1": 101}', r"101, must be a number in \[-100, 100\]"),
        ('{"1": NaN}', "nan, must be"),
        ('{"1": "1"}', "1, must be a number"),
        ('{"1": true}', "True, must be a number"),
        ('{"1": ' + "1" * 400 + "}", "must be a number in"),
        ('{"1": ' + "1" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (json.dumps({str(token): 1 for token in range(1025)}), "1025 entries, must be at most 1024"),
    ],
)
def test_a_wrong_logit_bias_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^INVALID_ARG: logit_bias: .*{problem}"):
        parse_logit_bias(text, 100)
