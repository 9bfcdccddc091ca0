"""A collector of the tests: it takes OTLP/HTTP in both forms, JSON as Triton sends it and protobuf."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came; ids are hexadecimal, times nanoseconds since 1970."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    begin_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    failed: bool


class Receiver(ThreadingHTTPServer):
    """`forward` is the port of another collector that gets what comes in protobuf."""

    daemon_threads = True

    def __init__(self, forward: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1/traces"
        self.forward = forward
        self.spans: list[Received] = []
        self.faults: list[Exception] = []

    def of(self, trace_id: str) -> dict[str, list[Received]]:
        """The spans of a trace, by name."""
        found: dict[str, list[Received]] = {}
        for span in list(self.spans):
            if span.trace_id == trace_id:
                found.setdefault(span.name, []).append(span)
        return found

    def take(self, kind: str, body: bytes) -> None:
        if kind == PROTOBUF:
            self.spans += from_protobuf(body)
            if self.forward is not None:
                _pass_on(self.forward, body)
        else:
            self.spans += _from_json(json.loads(body))


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            self.server.take(self.headers["content-type"], body)
        except Exception as error:  # noqa: BLE001 - told to the test
            self.server.faults.append(error)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing."""


@contextmanager
def receiving(forward: int | None = None) -> Iterator[Receiver]:
    with Receiver(forward) as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()
    assert not receiver.faults, receiver.faults


def from_protobuf(body: bytes) -> list[Received]:
    message = ExportTraceServiceRequest.FromString(body)
    return [
        Received(
            service={a.key: _plain(a.value) for a in of.resource.attributes}["service.name"],
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            begin_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            attributes={a.key: _plain(a.value) for a in span.attributes},
            failed=span.status.code == 2,
        )
        for of in message.resource_spans
        for scoped in of.scope_spans
        for span in scoped.spans
    ]


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_plain(item) for item in found.values] if kind == "array_value" else found


def _from_json(message: Any) -> list[Received]:
    return [
        Received(
            service=_attributes(of["resource"])["service.name"],
            name=span["name"],
            trace_id=span["traceId"],
            span_id=span["spanId"],
            parent_id=span.get("parentSpanId", ""),
            begin_ns=int(span["startTimeUnixNano"]),
            end_ns=int(span["endTimeUnixNano"]),
            attributes=_attributes(span),
            failed=span.get("status", {}).get("code") == 2,
        )
        for of in message["resourceSpans"]
        for scoped in of["scopeSpans"]
        for span in scoped["spans"]
    ]


def _attributes(holder: Any) -> dict[str, Any]:
    return {a["key"]: next(iter(a["value"].values())) for a in holder.get("attributes", [])}


def _pass_on(port: int, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/v1/traces", body, {"Content-Type": PROTOBUF})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
    finally:
        connection.close()
