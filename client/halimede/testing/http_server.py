"""An HTTP server on a local port that answers like Triton, from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from halimede.errors import ServerError
from halimede.results import Chunk
from halimede.testing.script import Event, Step, Turns

__all__ = ["FakeHttpServer"]

MODEL = "smollm2"
_CONFIG = {
    "name": MODEL,
    "platform": "ensemble",
    "backend": "",
    "max_batch_size": 1,
    "input": [{"name": "text_input", "dims": [1]}],
    "output": [{"name": "text_output", "dims": [1]}],
    "ensemble_scheduling": {"step": [{"model_name": f"{MODEL}_engine"}]},
}
_PAGES: dict[str, Any] = {
    "/v2": {"name": "triton", "version": "2.51.0"},
    "/v2/health/live": None,
    "/v2/health/ready": None,
    f"/v2/models/{MODEL}": {"name": MODEL, "versions": ["1"]},
    f"/v2/models/{MODEL}/ready": None,
    f"/v2/models/{MODEL}/versions/1/config": _CONFIG,
    "/v2/repository/index": [
        {"name": MODEL, "version": "1", "state": "READY"},
        {"name": "broken", "state": "UNAVAILABLE", "reason": "no engine"},
    ],
}


class FakeHttpServer:
    """Answers each generate or generate_stream with one turn of the script. The model is called smollm2.

    `requests` holds the bodies in order, `headers` the headers of each. `cancelled` is set when a client
    closes a request before the end of its answer. `metrics` is the text of /metrics.
    """

    def __init__(self, *turns: Sequence[Step], metrics: str = "") -> None:
        self.turns = Turns(turns)
        self.metrics = metrics
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.cancelled = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # an open connection must not delay the end

    def __init__(self, fake: FakeHttpServer) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._whole(200, "text/plain", self.server.fake.metrics.encode())
        elif self.path in _PAGES:
            self._json(200, _PAGES[self.path])
        else:
            self._json(400, {"error": f"Request for unknown model: {self.path} is not found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.path.startswith(f"/v2/models/{MODEL}/generate"):
            self.do_GET()
            return
        fake = self.server.fake
        fake.requests.append(json.loads(body))
        fake.headers.append({name.lower(): value for name, value in self.headers.items()})
        steps = fake.turns.take()
        if self.path.endswith("/generate_stream"):
            self._stream(steps)
        else:
            self._unary(steps)

    def _unary(self, steps: Sequence[Step]) -> None:
        first = steps[0]
        if isinstance(first, ServerError):
            self._json(400, _fault(first))
        elif isinstance(first, bytes):
            self._whole(200, "application/json", first)
        elif isinstance(first, Event):
            self._end_early(first)
        else:
            chunks = [step for step in steps if isinstance(step, Chunk)]
            text = "".join(chunk.text for chunk in chunks)
            tokens = sum(chunk.num_output_tokens or 0 for chunk in chunks)
            self._json(200, _outputs(replace(chunks[-1], text=text, num_output_tokens=tokens)))

    def _stream(self, steps: Sequence[Step]) -> None:
        self.send_response(400 if isinstance(steps[0], ServerError) else 200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for step in steps:
            if isinstance(step, Event):
                self._end_early(step)
                return
            if isinstance(step, bytes):
                self._send_chunked(step)
                continue
            value = _fault(step) if isinstance(step, ServerError) else _outputs(step)
            self._send_chunked(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")
        self._send_chunked(b"")

    def _send_chunked(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _end_early(self, event: Event) -> None:
        self.close_connection = True
        if event is Event.HANG:
            self.connection.recv(1)  # returns when the client closes the connection
            self.server.fake.cancelled.set()

    def _json(self, status: int, value: object) -> None:
        self._whole(status, "application/json", b"" if value is None else json.dumps(value).encode())

    def _whole(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Writes no access log."""


def _fault(error: ServerError) -> dict[str, str]:
    return {"error": f"in ensemble '{MODEL}', {error}"}


def _outputs(chunk: Step) -> dict[str, object]:
    assert isinstance(chunk, Chunk), chunk
    outputs = {
        "model_name": MODEL,
        "text_output": chunk.text,
        "finish_reason": chunk.finish_reason or "",
        "num_input_tokens": chunk.num_input_tokens,
        "num_output_tokens": chunk.num_output_tokens,
    }
    return {name: value for name, value in outputs.items() if value is not None}
