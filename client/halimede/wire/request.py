"""One request, for both protocols."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from halimede.errors import InvalidArgument
from halimede.inputs import INPUTS, Input, Sampling
from halimede.sampling import CallOptions, Message
from halimede.traceparent import checked_traceparent, current_traceparent
from halimede.wire.inputs import InputValue, checked, checked_name

__all__ = ["GenerateRequest", "request_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A request with either a prompt or messages. Without `stream` the server answers in one chunk."""

    model: str
    prompt: str | None = None
    messages: Sequence[Message] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stream: bool = True
    timeout_s: float | None = None
    request_id: str = ""
    traceparent: str | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            given = "neither" if self.prompt is None else "both"
            raise InvalidArgument.of("prompt", given, "must be one of prompt and messages")
        checked_name("model", self.model)
        checked_name("request_id", self.request_id)

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of this request, or its gRPC metadata."""
        return {"traceparent": self.traceparent} if self.traceparent else {}

    @property
    def timeout_us(self) -> int | None:
        """The timeout in microseconds, as Triton takes it. It is at least 1, because 0 means none."""
        return None if self.timeout_s is None else max(1, math.floor(self.timeout_s * 1e6))

    def inputs(self) -> dict[str, InputValue]:
        """The inputs of the ensemble by name, without those that are not set."""
        values: dict[str, InputValue | None] = {
            "text_input": self.prompt,
            "messages": None if self.messages is None else _json("messages", list(self.messages)),
            **_sampling_inputs(self.sampling),
            "stream": self.stream,
        }
        return {n: checked(n, value) for n, value in values.items() if value is not None}


def request_of(
    prompt: str | None,
    messages: Sequence[Message] | None,
    options: CallOptions,
    *,
    model: str,
    stream: bool,
) -> GenerateRequest:
    """The request of one call. The client sets the timeout, anew for each attempt."""
    fields: dict[str, Any] = {**options}
    fields.pop("timeout", None)
    given = fields.pop("traceparent", None)
    return GenerateRequest(
        model=fields.pop("model", model),
        prompt=prompt,
        messages=messages,
        request_id=fields.pop("request_id", ""),
        traceparent=current_traceparent() if given is None else checked_traceparent(given),
        sampling=replace(fields.pop("sampling", Sampling()), **fields),
        stream=stream,
    )


def _sampling_inputs(sampling: Sampling) -> dict[str, InputValue | None]:
    given = {name: getattr(sampling, one.argument) for name, one in INPUTS.items() if one.argument}
    return {name: _value(name, INPUTS[name], value) for name, value in given.items()}


def _value(name: str, of: Input, value: Any) -> InputValue | None:
    """As it is sent. A text that may be true or false, too, is sent as a text."""
    if value is None:
        return None
    if of.many:
        return ((value,) if isinstance(value, str) else tuple(value)) or None
    if of.json:
        return _json(name, dict(value))
    sent: InputValue = str(value).lower() if of.datatype == "BYTES" and isinstance(value, bool) else value
    return sent


def _json(name: str, value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgument.of(name, type(value).__name__, f"is not JSON: {error}") from error
