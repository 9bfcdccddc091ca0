"""Triton's generate extension over HTTP: /v2/models/NAME/generate and /generate_stream.

How Triton sends an error: before the first chunk as HTTP 400 with {"error": text}, which
generate_stream sends as an event; later in a stream as such an event with status 200. /generate may
send {"error": text} with status 200 too. The decoder therefore looks at the body first, then at the status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from halimede.errors import ProtocolError, ServerError
from halimede.results import Chunk
from halimede.wire.answer import chunk_of, parse_json
from halimede.wire.faults import server_error
from halimede.wire.request import GenerateRequest
from halimede.wire.sse import SseParser

__all__ = ["ReplyDecoder", "encode_body", "generate_path", "model_path", "status_error"]

_CODE_OF_STATUS: Mapping[int, str] = {
    400: "INVALID_ARG",
    401: "PERMISSION_DENIED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNSUPPORTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARG",
    429: "UNAVAILABLE",
    500: "INTERNAL",
    501: "UNSUPPORTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def model_path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def generate_path(request: GenerateRequest) -> str:
    return f"{model_path(request.model)}/{'generate_stream' if request.stream else 'generate'}"


def encode_body(request: GenerateRequest) -> bytes:
    """The inputs as plain JSON, with Triton's parameter `id` and the engine's parameter `timeout` (µs)."""
    body: dict[str, object] = dict(request.inputs())
    if request.request_id:
        body["id"] = request.request_id
    if request.timeout_us is not None:
        body["timeout"] = request.timeout_us
    return json.dumps(body, ensure_ascii=False).encode()


class ReplyDecoder:
    """Decodes one HTTP reply to generate or generate_stream, piece by piece."""

    def __init__(self, status: int, content_type: str) -> None:
        self._status = status
        self._body = bytearray()
        is_stream = content_type.partition(";")[0].strip() == "text/event-stream"
        self._events = SseParser() if is_stream else None

    def feed(self, received: bytes) -> Iterator[Chunk]:
        """The chunks that these bytes complete. Raises the error that the server sent."""
        if self._events is None:
            self._body += received
            return
        for data in self._events.feed(received):
            yield self._chunk(data)

    def finish(self) -> Iterator[Chunk]:
        """The chunk of a reply that is not a stream. Raises the error of a status that is not 200."""
        if self._status != 200:
            raise status_error(self._status, bytes(self._body))
        if self._events is None:
            yield self._chunk(bytes(self._body))

    def _chunk(self, data: str | bytes) -> Chunk:
        reply = parse_json(data, dict)
        error = reply.get("error")
        if error is not None:
            raise server_error(str(error), _CODE_OF_STATUS.get(self._status))
        return chunk_of(reply)


def status_error(status: int, body: bytes) -> ServerError:
    """The error of a reply whose status is not 200, from Triton or from a proxy in front of it."""
    code = _CODE_OF_STATUS.get(status, f"HTTP_{status}")
    try:
        text = parse_json(body, dict).get("error")
    except ProtocolError:  # a proxy's page, or an empty body
        text = None
    if isinstance(text, str) and text:
        return server_error(text, code)
    excerpt = body[:200].decode("utf-8", errors="replace").strip() or "no body"
    return server_error(f"HTTP status {status}: {excerpt}", code)
