"""Token streams over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from itertools import cycle
from typing import Any

import grpc

from halimede.grpc_faults import CHANNEL_OPTIONS, raises_our_errors
from halimede.results import Chunk
from halimede.target import Target
from halimede.wire import proto
from loadtest.users.asking import Ask, message_of


class GrpcSender:
    """Some channels that requests take by turns: behind a balancer of connections one would reach one server.

    Made, used and closed within one asyncio loop. `send` raises HalimedeError alone.
    """

    def __init__(self, target: Target, connections: int) -> None:
        self._target = target
        self._channels = [_channel(target) for _ in range(connections)]
        self._infer = cycle([proto.model_stream_infer(channel) for channel in self._channels])

    async def connect(self) -> None:
        """Before the first request, lest it pays for the connection. Waits for ever where nobody answers."""
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
        return grpc.aio.secure_channel(target.address, credentials, options=CHANNEL_OPTIONS)
    return grpc.aio.insecure_channel(target.address, options=CHANNEL_OPTIONS)
