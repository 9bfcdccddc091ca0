"""The tree of errors, and the errors that a server's texts stand for."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halimede import errors
from halimede.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    HalimedeError,
    InvalidArgument,
    NotFound,
    ProtocolError,
    ServerError,
    TransportError,
    Unavailable,
)
from halimede.wire.faults import ERRORS, server_error

field = st.from_regex(r"[a-z_]+(\[[0-9]\]\.[a-z]+)?", fullmatch=True)
value = st.text(st.characters(exclude_characters=",", codec="utf-8"))
limit = st.text(min_size=1)


def test_the_tree_of_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"^([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    names = [name for indent, name in drawn if indent or name == "HalimedeError"]
    assert sorted(names) == sorted(errors.__all__)
    depth = {name: len(indent) // 4 for indent, name in drawn}
    for name in names:
        assert len(getattr(errors, name).__mro__) - len(HalimedeError.__mro__) == depth[name]


@given(st.sampled_from(sorted(ERRORS)), field, value, limit, st.booleans())
def test_code_field_value_and_limit_are_parsed(
    code: str, field: str, value: str, limit: str, in_ensemble: bool
) -> None:
    text = f"{code}: {field}: {value}, {limit}"
    error = server_error(f"in ensemble 'smollm2', {text}" if in_ensemble else text)
    assert type(error) is ERRORS[code]
    assert (error.code, error.field, error.value, error.limit) == (code, field, value, limit)
    assert str(error) == text


def test_the_code_in_the_text_wins() -> None:
    error = server_error("DEADLINE_EXCEEDED: timeout: 100000 us, passed", "CANCELLED")
    assert type(error) is DeadlineExceeded
    assert not error.retryable


@pytest.mark.parametrize(
    ("text", "kind", "problem"),
    [
        ("Request for unknown model: 'x' is not found", NotFound, "is not in the server's repository"),
        ("Request for unknown model: 'x' has no available versions", Unavailable, "is not loaded"),
        (
            "Request for unknown model: 'x' version 3 is not found",
            NotFound,
            "is not in the server's repository",
        ),
    ],
)
def test_tritons_texts_for_a_model_that_does_not_serve(
    text: str, kind: type[ServerError], problem: str
) -> None:
    error = server_error(text, "NOT_FOUND")
    assert type(error) is kind
    assert (error.code, error.field, error.value, error.limit) == (kind.CODE, "model", "x", problem)


@pytest.mark.parametrize(
    ("text", "code", "kind"),
    [
        ("queue full", "UNAVAILABLE", Unavailable),
        ("no such thing", "RESOURCE_EXHAUSTED", ServerError),
        ("no code at all", None, ServerError),
        ("INVALID_ARGUMENTS: x: y, z", "INTERNAL", errors.Internal),
    ],
)
def test_a_text_without_our_form_keeps_the_code_of_the_protocol(
    text: str, code: str | None, kind: type[ServerError]
) -> None:
    error = server_error(text, code)
    assert type(error) is kind
    assert (str(error), error.field) == (text, None)


def test_parts_may_be_missing() -> None:
    no_limit = server_error("INVALID_ARG: messages: not JSON")
    assert (no_limit.field, no_limit.value, no_limit.limit) == ("messages", "not JSON", None)
    bare = server_error("INTERNAL: the engine stopped, see its log")
    assert (bare.code, bare.field) == ("INTERNAL", None)


def test_prefixes_of_nested_ensembles_are_removed() -> None:
    assert str(server_error("in ensemble 'a', in ensemble 'b', INTERNAL: x: y, z")) == "INTERNAL: x: y, z"


def test_only_temporary_errors_are_retryable() -> None:
    every = [getattr(errors, name) for name in errors.__all__]
    retryable = {kind for kind in every if kind.retryable}
    assert retryable == {
        TransportError,
        ConnectionFailed,
        errors.TlsFailed,
        errors.ConnectionLost,
        Unavailable,
    }


@pytest.mark.parametrize(
    "error", [InvalidArgument.of("top_p", 2, "must be in (0, 1]"), ProtocolError("no"), ConnectionFailed("x")]
)
def test_errors_pickle(error: HalimedeError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
