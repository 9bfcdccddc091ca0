"""Sends the engine's spans to a collector, over OTLP/HTTP, in a separate thread.

The loop only appends its notes to a bounded queue: a collector that is slow or down costs spans, which are
counted, and never a request. A batch is sent once; there are no retries.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import SplitResult, urlsplit

from engine.errors import SettingsError, shown
from engine.otlp import Placed, export_request
from engine.tracing import Ending, Trace, read_context, spans_of

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
