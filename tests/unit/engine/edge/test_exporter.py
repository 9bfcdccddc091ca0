"""The exporter against collectors on local ports, down, slow and broken ones among them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from engine.core.errors import SettingsError, Unavailable
from engine.edge import traces as exporting
from engine.edge.traces import (
    LARGEST_BATCH,
    LONGEST_QUEUE,
    CollectorFault,
    Ending,
    Exporter,
    Trace,
    open_exporter,
    post,
)

CARRIER = json.dumps({"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})


class Collector(ThreadingHTTPServer):
    """Answers `status`, once `gate` is open."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[tuple[str, str, bytes]] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.url = f"http://127.0.0.1:{self.server_port}/v1/traces"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append((self.path, self.headers["content-type"], body))
        self.server.gate.wait(30)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing."""


class Told:
    """What an exporter tells."""

    def __init__(self) -> None:
        self.dropped = 0
        self.faults: list[BaseException] = []

    def drop(self, count: int) -> None:
        self.dropped += count


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


def exporter_to(told: Told, send: Callable[[bytes], None]) -> Exporter:
    return Exporter(send, "toy", told.drop, told.faults.append)


def end_one(exporter: Exporter) -> None:
    trace = exporter.begin(CARRIER)
    assert trace is not None
    trace.started_ns = trace.received_ns
    trace.ended(Ending(trace.received_ns + 5))


def test_off_without_a_url() -> None:
    told = Told()
    assert open_exporter({}, "toy", told.drop, told.faults.append) is None
    assert open_exporter({"HALIMEDE_TRACE_URL": ""}, "toy", told.drop, told.faults.append) is None


@pytest.mark.parametrize("url", ["collector:4318", "ftp://c/v1/traces", "http://", "/v1/traces"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="HALIMEDE_TRACE_URL"):
        open_exporter({"HALIMEDE_TRACE_URL": url}, "toy", lambda _: None, lambda _: None)


def test_spans_are_posted_as_protobuf_and_the_rest_at_the_close(collector: Collector) -> None:
    told = Told()
    exporter = open_exporter({"HALIMEDE_TRACE_URL": collector.url}, "toy", told.drop, told.faults.append)
    assert exporter is not None
    end_one(exporter)
    exporter.close()
    ((path, kind, body),) = collector.bodies
    assert (path, kind) == ("/v1/traces", "application/x-protobuf")
    assert bytes.fromhex("ab" * 16) in body
    assert b"prefill" in body
    assert (told.dropped, told.faults) == (0, [])


def test_a_request_that_is_not_traced_is_none() -> None:
    exporter = exporter_to(Told(), lambda _: None)
    assert exporter.begin(None) is exporter.begin("") is exporter.begin("{}") is None


def test_batches_are_bounded() -> None:
    sizes: list[int] = []
    exporter = exporter_to(Told(), lambda body: sizes.append(body.count(b"prefill")))
    for _ in range(LARGEST_BATCH + 3):
        end_one(exporter)
    exporter.flush()
    # each names it twice: the span, and its attribute of chunks
    assert sizes == [2 * LARGEST_BATCH, 6]


def test_what_the_queue_cannot_hold_is_counted() -> None:
    told = Told()
    exporter = exporter_to(told, lambda _: None)
    for _ in range(LONGEST_QUEUE + 3):
        end_one(exporter)
    assert told.dropped == 3 * 2
    exporter.flush()
    end_one(exporter)
    assert told.dropped == 3 * 2


@pytest.mark.parametrize(
    "fault", [ConnectionRefusedError("no one"), TimeoutError("slow"), CollectorFault("503")]
)
def test_a_fault_is_counted_reported_once_and_over_with_the_next_success(fault: Exception) -> None:
    told, faulty = Told(), [True]

    def send(body: bytes) -> None:
        if faulty:
            raise fault

    exporter = exporter_to(told, send)
    for _ in range(2):
        end_one(exporter)
        exporter.flush()
    assert (told.dropped, told.faults) == (4, [fault])
    faulty.clear()
    end_one(exporter)
    exporter.flush()
    faulty.append(True)
    end_one(exporter)
    exporter.flush()
    assert (told.dropped, told.faults) == (6, [fault, fault])


def test_a_refusal_of_the_collector_is_a_fault(collector: Collector) -> None:
    collector.status = 503
    with pytest.raises(CollectorFault, match="503"):
        post(urlsplit(collector.url), b"")


def test_a_collector_that_hangs_is_left(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "TIMEOUT_SECONDS", 0.05)
    collector.gate.clear()
    told = Told()
    exporter = open_exporter({"HALIMEDE_TRACE_URL": collector.url}, "toy", told.drop, told.faults.append)
    assert exporter is not None
    end_one(exporter)
    exporter._thread.join(0)
    exporter._closing.set()
    exporter._thread.join(30)
    assert not exporter._thread.is_alive()
    assert told.dropped == 2
    assert isinstance(told.faults[0], TimeoutError)


def test_a_refused_request_has_a_queue_span_with_its_error() -> None:
    sent: list[bytes] = []
    exporter = exporter_to(Told(), sent.append)
    trace = exporter.begin(CARRIER)
    assert isinstance(trace, Trace)
    trace.ended(Ending(trace.received_ns, error=Unavailable("queue", "full")))
    exporter.flush()
    assert b"unavailable" in sent[0]
    assert b"UNAVAILABLE" in sent[0]


def test_ids_of_spans_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []
    real = os.urandom

    def draw(count: int) -> bytes:
        drawn.append(real(count))
        return drawn[-1]

    monkeypatch.setattr(os, "urandom", draw)
    exporter = exporter_to(Told(), lambda _: None)
    for _ in range(50):
        end_one(exporter)
    exporter.flush()
    assert len(set(drawn)) == 100
