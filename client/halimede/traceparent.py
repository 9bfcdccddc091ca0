"""The W3C trace context of a request, by which the server's spans join the caller's trace."""

from __future__ import annotations

import re
import secrets
import sys

from halimede.errors import InvalidArgument

__all__ = ["checked_traceparent", "current_traceparent", "new_traceparent", "trace_id_of"]

_FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def checked_traceparent(text: str) -> str:
    """The text itself. Raises InvalidArgument for a text that servers would ignore."""
    if not _FORM.fullmatch(text):
        problem = "must be 00-TRACE-SPAN-FLAGS in lower-case hexadecimal, of 32, 16 and 2 digits"
        raise InvalidArgument.of("traceparent", text, problem)
    return text


def current_traceparent() -> str | None:
    """The current span of OpenTelemetry. None if the program does not use it or the span is not sampled.

    Triton 2.51 records every request with a traceparent, sampled or not. Nothing is imported here.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def new_traceparent() -> str:
    """The traceparent of a new trace."""
    ids = secrets.randbits(128) or 1, secrets.randbits(64) or 1
    return f"00-{ids[0]:032x}-{ids[1]:016x}-01"


def trace_id_of(traceparent: str) -> str:
    return traceparent.split("-")[1]
