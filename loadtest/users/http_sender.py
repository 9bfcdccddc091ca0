"""Triton's generate and generate_stream over HTTP, each request on a connection of its own.

A connection for each request, as of a client that comes anew: no pool has to be waited for, and none can hand
out a connection that the server is about to close. Opening it counts as lag, so it is seen.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable

import h11

from halimede.errors import ConnectionFailed, ConnectionLost, ProtocolError
from halimede.results import Chunk
from halimede.target import Target
from halimede.wire.rest import ReplyDecoder, generate_path
from loadtest.users.asking import Ask, body_of

_READ_BYTES = 65536


class HttpSender:
    """`send` raises HalimedeError alone."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tls = ssl.create_default_context() if target.is_secure else None

    async def connect(self) -> None:
        pass

    async def send(self, ask: Ask, sent: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
        reader, writer = await self._open()
        try:
            connection = h11.Connection(h11.CLIENT)
            request = self._encoded(connection, ask)
            sent()
            writer.write(request)
            reply: ReplyDecoder | None = None
            async for event in self._events(connection, reader):
                if isinstance(event, h11.Response):
                    reply = _decoder(event)
                elif isinstance(event, h11.Data):
                    assert reply is not None
                    for chunk in reply.feed(bytes(event.data)):
                        yield chunk
            assert reply is not None
            for chunk in reply.finish():
                yield chunk
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        pass

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection(self._target.host, self._target.port, ssl=self._tls)
        except OSError as error:
            raise ConnectionFailed(f"no server at {self._target.address}: {error}") from error

    def _encoded(self, connection: h11.Connection, ask: Ask) -> bytes:
        body = body_of(ask)
        headers = [
            ("Host", self._target.address),
            ("Content-Type", "application/json"),
            ("Content-Length", f"{len(body)}"),
        ]
        path = self._target.path + generate_path(ask.request)
        head = connection.send(h11.Request(method="POST", target=path, headers=headers))
        return (head or b"") + (connection.send(h11.Data(body)) or b"") + (_end(connection))

    async def _events(
        self, connection: h11.Connection, reader: asyncio.StreamReader
    ) -> AsyncGenerator[h11.Event, None]:
        """Up to the end of the answer's body."""
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(_READ_BYTES))
                elif isinstance(event, h11.EndOfMessage):
                    return
                elif isinstance(event, h11.Event):
                    yield event
                else:
                    raise ConnectionLost(f"connection to {self._target.address} lost: {event!r}")
        except OSError as error:
            raise ConnectionLost(f"connection to {self._target.address} lost: {error}") from error
        except h11.RemoteProtocolError as error:
            if connection.trailing_data[1]:  # the server closed it
                raise ConnectionLost(f"connection to {self._target.address} lost: {error}") from error
            raise ProtocolError(f"answer of {self._target.address}: {error}") from error


def _end(connection: h11.Connection) -> bytes:
    return connection.send(h11.EndOfMessage()) or b""


def _decoder(response: h11.Response) -> ReplyDecoder:
    headers = dict(response.headers)
    return ReplyDecoder(response.status_code, headers.get(b"content-type", b"").decode("latin-1"))
