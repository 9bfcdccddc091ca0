from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import (
    ArtifactError,
    Cancelled,
    ClientFault,
    DeadlineExceeded,
    EngineError,
    InternalError,
    InvalidArgument,
    ServerFault,
    SettingsError,
    Unavailable,
    shown,
)


@pytest.mark.parametrize(
    ("kind", "code", "parent"),
    [
        (InvalidArgument, "INVALID_ARG", ClientFault),
        (DeadlineExceeded, "DEADLINE_EXCEEDED", ClientFault),
        (Cancelled, "CANCELLED", ClientFault),
        (Unavailable, "UNAVAILABLE", ServerFault),
        (SettingsError, "INVALID_ARG", ServerFault),
        (ArtifactError, "INTERNAL", ServerFault),
        (InternalError, "INTERNAL", ServerFault),
    ],
)
def test_errors_read_code_field_problem(
    kind: type[EngineError], code: str, parent: type[EngineError]
) -> None:
    error = kind("queue", "64 waiting, limit 64")
    assert str(error) == f"{code}: queue: 64 waiting, limit 64"
    assert isinstance(error, parent)
    assert error.status in {"INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL"}


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize("value", ["", "a\nb", "x" * 1000, "\x00", "\u202e", 1.5, None, nested(900)])
def test_a_shown_value_is_short_and_printable(value: object) -> None:
    text = shown(value)
    assert 0 < len(text) <= 200
    assert text.isprintable()


def test_an_ordinary_value_is_shown_as_it_is() -> None:
    assert shown("abc") == "abc"
    assert shown(-0.5) == "-0.5"
    assert shown("y" * 50, 10) == "yyyyyyyyy…"
