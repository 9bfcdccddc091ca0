"""Triton's generate and generate_stream endpoints, with the standard library."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self

from tests.live.wire import WAIT_SECONDS, Address, Reply, WireError


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    kind: str  # the media type
    body: str


class HttpWire:
    """Every request has a connection of its own."""

    name = "http"

    def __init__(self, address: Address) -> None:
        self._address = address

    def open(self, **inputs: Any) -> Generator[Reply, None, None]:
        """Over /generate_stream when the inputs ask for a stream, else over /generate."""
        body = json.dumps(inputs).encode()
        if inputs.get("stream"):
            yield from self._stream(body)
        else:
            response = self.post("generate", body)
            yield _reply(response.status, response.body)

    def abandon(self, seconds: float, **inputs: Any) -> None:
        with closing(self._connect()) as connection:
            path = f"/v2/models/{self._address.model}/generate_stream"
            connection.request("POST", path, json.dumps(inputs).encode())
            time.sleep(seconds)

    def post(self, method: str, body: bytes) -> Response:
        """The raw answer of an endpoint of the model."""
        with closing(self._connect()) as connection:
            response = _send(connection, f"/v2/models/{self._address.model}/{method}", body)
            return Response(response.status, response.headers.get_content_type(), response.read().decode())

    def get(self, path: str) -> Response:
        with closing(self._connect()) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return Response(response.status, response.headers.get_content_type(), response.read().decode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """There is nothing to close."""

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address.http, timeout=WAIT_SECONDS)

    def _stream(self, body: bytes) -> Generator[Reply, None, None]:
        path = f"/v2/models/{self._address.model}/generate_stream"
        with closing(self._connect()) as connection, closing(_send(connection, path, body)) as response:
            for line in response:
                if data := line.decode().removeprefix("data: ").strip():
                    yield _reply(response.status, data)


def _send(connection: http.client.HTTPConnection, path: str, body: bytes) -> http.client.HTTPResponse:
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    return connection.getresponse()


def _reply(status: int, data: str) -> Reply:
    outputs = json.loads(data)
    if "error" in outputs:
        raise WireError(status, outputs["error"])
    assert status == http.client.OK, f"{status}: {data}"
    return Reply(outputs)
