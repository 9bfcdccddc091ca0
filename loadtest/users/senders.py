"""How a request goes out: token streams over gRPC, and Triton's generate and generate_stream over HTTP.

A sender is made, used and closed within one asyncio loop; `send` raises HalimedeError alone.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from itertools import cycle
from typing import Any

import grpc
import h11

from halimede.errors import ConnectionFailed, ConnectionLost, ProtocolError
from halimede.grpc_faults import channel_options, raises_our_errors
from halimede.results import Chunk
from halimede.target import Target
from halimede.wire import proto
from halimede.wire.rest import ReplyDecoder, generate_path
from loadtest.users.request import Ask, body_of, message_of

_READ_BYTES = 65536
# Of gRPC's own probes one may be on its way when a server stalls: a stall of this length is measured, and not
# a lost connection.
_OPTIONS = channel_options(120.0)


class GrpcSender:
    """Requests use several channels in turn: behind a balancer of connections, one channel would reach one
    server only."""

    def __init__(self, target: Target, connections: int) -> None:
        self._target = target
        self._channels = [_channel(target) for _ in range(connections)]
        self._infer = cycle([proto.model_stream_infer(channel) for channel in self._channels])

    async def connect(self) -> None:
        """Waits for ever where no server answers."""
        for channel in self._channels:
            await channel.channel_ready()

    async def send(self, ask: Ask, sent: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
        call = next(self._infer)(message_of(ask))
        sent()
        try:
            with raises_our_errors(self._target):
                async for response in call:
                    yield proto.decode(response)
        finally:
            call.cancel()

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def _channel(target: Target) -> Any:
    if target.is_secure:
        credentials = grpc.ssl_channel_credentials()
        return grpc.aio.secure_channel(target.address, credentials, options=_OPTIONS)
    return grpc.aio.insecure_channel(target.address, options=_OPTIONS)


class HttpSender:
    """Each request has a connection of its own, as from a new client: no pool has to be waited for,
    and none can hand out a connection that the server is about to close. Opening it counts as lag."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tls = ssl.create_default_context() if target.is_secure else None

    async def connect(self) -> None:
        pass

    async def send(self, ask: Ask, sent: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
        try:
            reader, writer = await asyncio.open_connection(
                self._target.host, self._target.port, ssl=self._tls
            )
        except OSError as error:
            raise ConnectionFailed(f"no server at {self._target.address}: {error}") from error
        try:
            connection = h11.Connection(h11.CLIENT)
            request = self._encoded(connection, ask)
            sent()
            writer.write(request)
            reply: ReplyDecoder | None = None
            async for event in self._events(connection, reader):
                if isinstance(event, h11.Response):
                    kind = dict(event.headers).get(b"content-type", b"").decode("latin-1")
                    reply = ReplyDecoder(event.status_code, kind)
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

    def _encoded(self, connection: h11.Connection, ask: Ask) -> bytes:
        body = body_of(ask)
        headers = [
            ("Host", self._target.address),
            ("Content-Type", "application/json"),
            ("Content-Length", f"{len(body)}"),
        ]
        path = self._target.path + generate_path(ask.request)
        request = h11.Request(method="POST", target=path, headers=headers)
        parts = [connection.send(event) for event in (request, h11.Data(body), h11.EndOfMessage())]
        return b"".join(part or b"" for part in parts)

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
