"""One request in an OpenTelemetry trace: its parent, the engine's notes of it, its spans, and their export.

Names of attributes are those of OpenTelemetry's GenAI conventions where there is one; a prompt or an answer
is never in a span. Spans are written in OTLP's protobuf form by hand, only the few messages that they need;
the numbers of the fields are those of opentelemetry/proto/trace/v1/trace.proto, which is stable.

A separate thread sends them to a collector, over OTLP/HTTP. The loop only appends its notes to a bounded
queue: a collector that is slow or down costs spans, which are counted, and never a request. A batch is sent
once; there are no retries.
"""

from __future__ import annotations

import json
import os
import re
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import SplitResult, urlsplit

from engine.core.errors import Cancelled, EngineError, InvalidArgument, SettingsError, shown

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


_VARINT, _FIXED64, _BYTES = 0, 1, 2
_KIND_INTERNAL: Final = 1
_STATUS_ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class Placed:
    """A span in its trace. `offset_ns` added to its times gives nanoseconds since 1970."""

    span: Span
    parent: Context
    span_id: bytes
    offset_ns: int


def export_request(spans: Iterable[Placed], service: str, scope: str) -> bytes:
    """An ExportTraceServiceRequest of one resource, called `service`."""
    resource = _bytes(1, _attribute("service.name", service))
    scoped = _bytes(1, _text(1, scope)) + b"".join(_bytes(2, _span(span)) for span in spans)
    return _bytes(1, _bytes(1, resource) + _bytes(2, scoped))


def _span(placed: Placed) -> bytes:
    span = placed.span
    return b"".join(
        [
            _bytes(1, placed.parent.trace_id),
            _bytes(2, placed.span_id),
            _bytes(4, placed.parent.span_id),
            _text(5, span.name),
            _number(6, _KIND_INTERNAL),
            _time(7, span.begin_ns + placed.offset_ns),
            _time(8, span.end_ns + placed.offset_ns),
            *(_bytes(9, _attribute(name, value)) for name, value in span.attributes.items()),
            _bytes(15, _text(2, span.error) + _number(3, _STATUS_ERROR)) if span.error else b"",
        ]
    )


def _attribute(name: str, value: Attribute) -> bytes:
    return _text(1, name) + _bytes(2, _value(value))


def _value(value: Attribute) -> bytes:
    if isinstance(value, str):
        return _text(1, value)
    if isinstance(value, int):
        return _number(3, value)
    return _bytes(5, b"".join(_bytes(1, _value(item)) for item in value))


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _time(field: int, nanoseconds: int) -> bytes:
    return _varint(field << 3 | _FIXED64) + struct.pack("<Q", nanoseconds)


def _varint(value: int) -> bytes:
    """The protobuf varint of a number that is not negative."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


# The launcher's name of it, in the environment of Triton.
TRACE_URL: Final = "HALIMEDE_TRACE_URL"
SERVICE: Final = "halimede"
SCOPE: Final = "halimede.engine"
PERIOD_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 2.0
LONGEST_QUEUE: Final = 4096
LARGEST_BATCH: Final = 512

Send = Callable[[bytes], None]


class CollectorFault(Exception):
    """The collector answered, and not with success."""


class Exporter:
    """`send` delivers one export request or raises OSError, HTTPException or CollectorFault; `dropped` counts
    spans that were lost; `report` gets the first fault after a success.
    """

    def __init__(
        self, send: Send, model: str, dropped: Callable[[int], None], report: Callable[[BaseException], None]
    ) -> None:
        self._send = send
        self._model = model
        self._dropped = dropped
        self._report = report
        self._ended: deque[tuple[Trace, Ending]] = deque()
        self._closing = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="engine-traces", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def begin(self, carrier: object) -> Trace | None:
        """The trace of a request that came with this carrier; None for one that Triton does not trace."""
        parent = read_context(carrier)
        return None if parent is None else Trace(parent, time.monotonic_ns(), self.put)

    def put(self, trace: Trace, ending: Ending) -> None:
        if len(self._ended) < LONGEST_QUEUE:
            self._ended.append((trace, ending))
        else:
            self._dropped(len(spans_of(trace, ending, self._model)))

    def flush(self) -> None:
        """Sends what has ended, up to the first fault."""
        while self._ended and self._send_batch():
            pass

    def close(self) -> None:
        """Sends the rest; a collector that hangs is not waited for."""
        self._closing.set()
        self._thread.join(2 * TIMEOUT_SECONDS)

    def _run(self) -> None:
        while not self._closing.wait(PERIOD_SECONDS):
            self.flush()
        self.flush()

    def _send_batch(self) -> bool:
        offset = time.time_ns() - time.monotonic_ns()
        count = min(len(self._ended), LARGEST_BATCH)
        placed = [
            Placed(span, trace.parent, os.urandom(8), offset)
            for trace, ending in (self._ended.popleft() for _ in range(count))
            for span in spans_of(trace, ending, self._model)
        ]
        try:
            self._send(export_request(placed, SERVICE, SCOPE))
        except (OSError, HTTPException, CollectorFault) as error:
            self._dropped(len(placed))
            if not self._failing:
                self._report(error)
            self._failing = True
            return False
        self._failing = False
        return True


def open_exporter(
    environ: Mapping[str, str],
    model: str,
    dropped: Callable[[int], None],
    report: Callable[[BaseException], None],
) -> Exporter | None:
    """None where the launcher was given no --trace-url; raises SettingsError for one that is none."""
    text = environ.get(TRACE_URL)
    if not text:
        return None
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError(
            TRACE_URL, f"{shown(text)}, must be a URL such as http://localhost:4318/v1/traces"
        )
    exporter = Exporter(lambda body: post(url, body), model, dropped, report)
    exporter.start()
    return exporter


def post(url: SplitResult, body: bytes) -> None:
    """Raises OSError, HTTPException or CollectorFault when it was not taken."""
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=TIMEOUT_SECONDS)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection.request("POST", target, body, {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        if not 200 <= answer.status < 300:
            raise CollectorFault(f"the trace collector at {url.netloc} answered {answer.status}")
    finally:
        connection.close()
