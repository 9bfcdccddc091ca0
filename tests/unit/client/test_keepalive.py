"""The keepalive detects a server that vanished, and does not cut off one that is only silent."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from halimede import (
    AsyncClient,
    Client,
    ConnectionFailed,
    ConnectionLost,
    InvalidArgument,
    NotFound,
    RetryPolicy,
    grpc_faults,
)
from halimede.grpc_faults import channel_options
from halimede.http_faults import socket_options
from halimede.target import parse_target
from halimede.testing import Event, FakeGrpcServer, FakeHttpServer, Step, answer
from tests.fakes.relay import PATIENCE_S, Relay

ONCE = RetryPolicy(attempts=1)
SOON_S = 0.3
HANGS: list[Step] = ["Once", Event.HANG]
ESTABLISHED, KEEPALIVE = "01", "02"  # in /proc/net/tcp


def _client(relay: Relay, retry: RetryPolicy = ONCE) -> Client:
    return Client(relay.url, retry=retry, timeout=math.inf, keepalive=SOON_S)


class TestVanished:
    """Without a keepalive, these requests without a timeout would never end."""

    def test_a_stream_raises(self) -> None:
        with FakeGrpcServer(HANGS) as server, Relay(server.url) as relay, _client(relay) as client:
            stream = client.stream("?")
            assert next(stream).text == "Once"
            relay.vanish()
            with pytest.raises(ConnectionLost, match=f"connection to {relay.url} lost: "):
                next(stream)

    def test_an_asynchronous_stream_raises(self) -> None:
        async def ask(url: str, relay: Relay) -> None:
            async with AsyncClient(url, retry=ONCE, timeout=math.inf, keepalive=SOON_S) as client:
                stream = client.stream("?")
                await anext(stream)
                relay.vanish()
                with pytest.raises(ConnectionLost):
                    await anext(stream)

        with FakeGrpcServer(HANGS) as server, Relay(server.url) as relay:
            asyncio.run(ask(relay.url, relay))

    def test_before_the_first_token_the_request_is_retried(self) -> None:
        """The next connection reaches another node, like that of a Service."""
        with (
            FakeGrpcServer([Event.HANG], answer("Hello")) as server,
            Relay(server.url) as relay,
            _client(relay, RetryPolicy()) as client,
            ThreadPoolExecutor(1) as pool,
        ):
            found = pool.submit(client.generate, "?")
            relay.wait_for_pings(1)
            relay.vanish()
            assert found.result(PATIENCE_S).text == "Hello"


class Quiet(FakeGrpcServer):
    """Answers only after `speak` is set."""

    def __init__(self, *turns: Any) -> None:
        super().__init__(*turns)
        self.speak = threading.Event()

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        assert self.speak.wait(PATIENCE_S)
        yield from super().ModelStreamInfer(requests, context)


def test_a_silent_server_that_answers_pings_is_not_cut_off() -> None:
    with (
        Quiet(answer("Hello")) as server,
        Relay(server.url) as relay,
        _client(relay) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        found = pool.submit(client.generate, "?")
        relay.wait_for_pings(2)
        server.speak.set()
        assert found.result(PATIENCE_S).text == "Hello"


def test_a_server_that_allows_fewer_pings_is_explained() -> None:
    class Failed(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "Too many pings"

    with (
        pytest.raises(ConnectionLost, match="the server allows fewer pings: use a longer keepalive"),
        grpc_faults.raises_our_errors(parse_target("x")),
    ):
        raise Failed


@pytest.mark.parametrize("keepalive", [0, -1.0, math.nan])
def test_the_keepalive_must_be_positive(keepalive: float) -> None:
    with pytest.raises(
        InvalidArgument, match=r"keepalive: .*, must be more than 0 seconds, or inf for never"
    ):
        Client(keepalive=keepalive)


def test_infinity_disables_the_keepalive() -> None:
    never = 2**31 - 1  # as gRPC has it
    assert dict(channel_options(math.inf))["grpc.keepalive_time_ms"] == never
    assert socket_options(math.inf) == []


class TestHttp:
    @pytest.mark.parametrize("keepalive", [0.01, 10.0, 1e9])
    def test_a_socket_accepts_the_options(self, keepalive: float) -> None:
        with socket.socket() as made:
            options = socket_options(keepalive)
            assert len(options) == 5  # those that Linux has
            for level, option, value in options:
                made.setsockopt(level, option, value)
                assert made.getsockopt(level, option) == value

    def test_a_connection_has_the_options(self) -> None:
        with (
            FakeHttpServer(HANGS) as server,
            Client(server.url, keepalive=7.0) as client,
            client.stream("?") as stream,
        ):
            next(stream)
            assert 0 < _probed_in_s(server.url) <= 7.0

    def test_an_asynchronous_connection_has_the_options(self) -> None:
        async def ask(url: str) -> float:
            async with AsyncClient(url, keepalive=7.0) as client, client.stream("?") as stream:
                await anext(stream)
                return _probed_in_s(url)

        with FakeHttpServer(HANGS) as server:
            assert 0 < asyncio.run(ask(server.url)) <= 7.0

    def test_a_proxy_of_the_environment_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fake server is the proxy. It answers with an error that contains the whole URL."""
        url = "http://llm.invalid"
        with FakeHttpServer() as proxy, monkeypatch.context() as patch:
            patch.setenv("HTTP_PROXY", proxy.url)
            for name in ("no_proxy", "NO_PROXY", "http_proxy", "REQUEST_METHOD"):
                patch.delenv(name, raising=False)
            with Client(url, retry=ONCE) as client, pytest.raises(NotFound, match=f"{url}:8000/v2"):
                client.health()
            patch.setenv("NO_PROXY", "llm.invalid")
            with (
                Client(url, retry=ONCE) as client,
                pytest.raises(ConnectionFailed),
            ):
                client.health()


def _probed_in_s(url: str) -> float:
    """Seconds until Linux sends the next probe of the client's connection to that server."""
    port = int(url.rpartition(":")[2])
    pattern = rf"^ *\d+: \w+:\w+ \w+:{port:04X} {ESTABLISHED} \w+:\w+ {KEEPALIVE}:(\w+)"
    (ticks,) = re.findall(pattern, Path("/proc/net/tcp").read_text(), re.MULTILINE)
    return int(ticks, 16) / 100
