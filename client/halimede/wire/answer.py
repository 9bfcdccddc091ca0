"""The outputs of an ensemble as a Chunk, for both protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from halimede.errors import ProtocolError
from halimede.results import Alternative, Chunk, TokenLogprob

__all__ = ["chunk_of", "parse_json", "typed"]

T = TypeVar("T")


def chunk_of(outputs: Mapping[str, object]) -> Chunk:
    """Outputs that are absent or null get a Chunk's defaults. Raises ProtocolError without a text_output."""
    logprobs = _optional(outputs, "logprobs", str)
    return Chunk(
        text=typed(outputs.get("text_output"), str, "text_output"),
        finish_reason=_optional(outputs, "finish_reason", str) or None,
        num_input_tokens=_optional(outputs, "num_input_tokens", int),
        num_output_tokens=_optional(outputs, "num_output_tokens", int),
        logprobs=_logprobs(logprobs) if logprobs else (),
    )


def parse_json(text: str | bytes, kind: type[T]) -> T:
    """The text as JSON. Raises ProtocolError unless it is JSON of that kind (list or dict)."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {text[:200]!r}") from error
    return typed(value, kind, "JSON")


def typed(value: object, kind: type[T], name: str) -> T:
    if not isinstance(value, kind):
        raise ProtocolError(f"{name}: {value!r:.100} is not of type {kind.__name__}")
    return value


def _optional(outputs: Mapping[str, object], name: str, kind: type[T]) -> T | None:
    value = outputs.get(name)
    return None if value is None else typed(value, kind, name)


def _logprobs(text: str) -> tuple[TokenLogprob, ...]:
    tokens = parse_json(text, list)
    try:
        return tuple(
            TokenLogprob(**_token(token), top=tuple(Alternative(**_token(t)) for t in token["top"]))
            for token in tokens
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"logprobs: {text[:200]!r} has an unknown form") from error


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": int(token["id"]),
        "token": str(token["token"]),
        "bytes": bytes(token["bytes"]),
        "logprob": float(token["logprob"]),
    }
