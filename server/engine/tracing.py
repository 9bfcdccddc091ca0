"""One request in an OpenTelemetry trace: its parent, what the engine noted of it, and the spans this makes.

Rules of this file: no clock, no thread, no I/O. Names of attributes are those of OpenTelemetry's GenAI
conventions where there is one; a prompt or an answer is never in a span.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from engine.errors import Cancelled, EngineError, InvalidArgument

Attribute = str | int | tuple[str, ...]

# Version ff is forbidden; later versions may add fields behind the flags. https://www.w3.org/TR/trace-context
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_LONGEST_CARRIER: Final = 4096
# As in OpenTelemetry's rules for servers: a client's mistake is not an error of the server.
_CLIENTS: Final = (Cancelled, InvalidArgument)


@dataclass(frozen=True, slots=True)
class Context:
    """A span of a trace, as bytes: 16 and 8."""

    trace_id: bytes
    span_id: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended, with its counts of tokens: a reason to finish, or an error."""

    at_ns: int
    prompt: int = 0
    reused: int = 0
    generated: int = 0
    finish: str = ""
    error: EngineError | None = None


@dataclass(slots=True, eq=False)
class Trace:
    """The engine's notes about a traced request, in monotonic nanoseconds; `emit` takes them when it ends, in
    the loop's thread.
    """

    parent: Context
    received_ns: int
    emit: Callable[[Trace, Ending], None]
    started_ns: int | None = None
    prefilled_ns: int | None = None
    chunks: int = 0

    def ran_chunk(self, now: int, last: bool) -> None:
        self.chunks += 1
        if last:
            self.prefilled_ns = now

    def ended(self, ending: Ending) -> None:
        self.emit(self, ending)


@dataclass(frozen=True, slots=True)
class Span:
    """Times are nanoseconds of the same clock as the notes; `error` is the code of an error of the server."""

    name: str
    begin_ns: int
    end_ns: int
    attributes: Mapping[str, Attribute]
    error: str = ""


def read_context(carrier: object) -> Context | None:
    """The context in what Triton hands over, a JSON object with a `traceparent`; None where there is none."""
    if not isinstance(carrier, str) or not 0 < len(carrier) <= _LONGEST_CARRIER:
        return None
    try:
        fields = json.loads(carrier)
    except (ValueError, RecursionError):
        return None
    return read_traceparent(fields.get("traceparent")) if isinstance(fields, dict) else None


def read_traceparent(text: object) -> Context | None:
    """None for what is no W3C traceparent, or names no trace or span."""
    found = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    context = Context(bytes.fromhex(found[1]), bytes.fromhex(found[2]))
    return context if any(context.trace_id) and any(context.span_id) else None


def spans_of(trace: Trace, ending: Ending, model: str) -> list[Span]:
    """`queue`, `prefill` and `decode`, one after the other without a gap; those that were not reached are
    left out, and the last carries the error.
    """
    times = [trace.received_ns, trace.started_ns, trace.prefilled_ns]
    begins = [max(time, trace.received_ns) for time in times if time is not None]
    ends = [*begins[1:], max(ending.at_ns, begins[-1])]
    details: list[dict[str, Attribute]] = [{}, _of_prefill(trace, ending), _of_decode(ending)]
    fields = zip(("queue", "prefill", "decode"), begins, ends, details, strict=False)
    spans = [Span(name, begin, end, {"gen_ai.request.model": model, **of}) for name, begin, end, of in fields]
    return [*spans[:-1], _closing(spans[-1], ending.error)]


def _of_prefill(trace: Trace, ending: Ending) -> dict[str, Attribute]:
    return {
        "gen_ai.usage.input_tokens": ending.prompt,
        "gen_ai.usage.cache_read.input_tokens": ending.reused,
        "halimede.prefill.chunks": trace.chunks,
    }


def _of_decode(ending: Ending) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {"gen_ai.usage.output_tokens": ending.generated}
    return found | ({"gen_ai.response.finish_reasons": (ending.finish,)} if ending.finish else {})


def _closing(span: Span, error: EngineError | None) -> Span:
    if error is None:
        return span
    attributes = {**span.attributes, "error.type": error.code.lower()}
    code = "" if isinstance(error, _CLIENTS) else error.code
    return Span(span.name, span.begin_ns, span.end_ns, attributes, code)
