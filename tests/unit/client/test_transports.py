"""Both transports, synchronous and asynchronous, against servers on local ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from halimede import AsyncClient, Client, RetryPolicy, Sampling
from halimede.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    HalimedeError,
    Internal,
    InvalidArgument,
    NotFound,
    ProtocolError,
    Unavailable,
    Unsupported,
)
from halimede.results import Chunk
from halimede.testing import Event, FakeGrpcServer, FakeHttpServer, Step, answer

Ask = Callable[[], object]
Server = FakeGrpcServer | FakeHttpServer
ONCE = RetryPolicy(attempts=1)
AT_ONCE = RetryPolicy(base_s=0, cap_s=0)
BUSY = Unavailable.of("queue", "64 waiting", "limit 64")
HEARTBEAT = Chunk(num_input_tokens=3, num_output_tokens=0)
PATIENCE_S = 60.0


def _client(server: Server, retry: RetryPolicy = ONCE, **options: Any) -> Client:
    return Client(server.url, retry=retry, **options)


class TestAnswers:
    def test_a_whole_answer(self, serve: Callable[..., Server]) -> None:
        with serve(answer("Grüße ", "🙂", num_input_tokens=4)) as server, _client(server) as client:
            found = client.generate("?")
        assert (found.text, found.finish_reason) == ("Grüße 🙂", "stop")
        assert (found.num_input_tokens, found.num_output_tokens) == (4, 2)

    def test_a_stream(self, serve: Callable[..., Server]) -> None:
        turn = [HEARTBEAT, *answer("Grüße ", "🙂", finish_reason="length")]
        with serve(turn) as server, _client(server) as client:
            chunks = list(client.stream("?"))
        assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [
            ("Grüße ", None),
            ("🙂", None),
            ("", "length"),
        ]

    def test_one_client_serves_many_requests(self, serve: Callable[..., Server]) -> None:
        with serve(*[answer("a")] * 20) as server, _client(server) as client:
            streams = [client.stream("?") for _ in range(10)]
            for stream in streams:
                next(stream)
            assert [stream.collect().text for stream in streams] == ["a"] * 10
            assert [client.generate("?").text for _ in range(10)] == ["a"] * 10

    @pytest.mark.anyio
    async def test_asynchronously(self, serve: Callable[..., Server]) -> None:
        with serve(*[answer("a", "b")] * 8) as server:
            async with AsyncClient(server.url, retry=ONCE) as client:
                whole = [client.generate("?") for _ in range(4)]
                streams = [client.stream("?").collect() for _ in range(4)]
                found = await asyncio.gather(*whole, *streams)
        assert [answer.text for answer in found] == ["ab"] * 8


class TestSending:
    def test_over_grpc(self) -> None:
        with FakeGrpcServer(answer("a")) as server:
            with Client(server.url, headers={"Traceparent": "00-1"}, timeout=600) as client:
                client.generate("?", sampling=Sampling(max_tokens=3), request_id="r1")
            (message,), (metadata,) = server.requests, server.metadata
        assert (message.id, message.model_name) == ("r1", "smollm2")
        assert 500_000_000 < message.parameters["timeout"].int64_param <= 600_000_000
        assert "triton_grpc_error" not in metadata  # it crashes Triton
        assert metadata["traceparent"] == "00-1"

    def test_over_http(self) -> None:
        with FakeHttpServer(answer("a")) as server:
            with Client(server.url, headers={"Traceparent": "00-1"}, timeout=600) as client:
                client.generate("?", max_tokens=3, request_id="r1")
            (body,), (headers,) = server.requests, server.headers
        timeout_us = body.pop("timeout")
        assert 500_000_000 < timeout_us <= 600_000_000
        assert body == {
            "text_input": "?",
            "max_tokens": 3,
            "return_num_input_tokens": True,
            "return_num_output_tokens": True,
            "stream": False,
            "id": "r1",
        }
        assert headers["traceparent"] == "00-1"


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            BUSY,
            InvalidArgument.of("max_tokens", 0, "must be between 1 and 2048"),
            DeadlineExceeded.of("timeout", "100000 us", "has passed"),
            Unsupported.of("num_logprobs", 5, "no"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_before_the_first_chunk(self, serve: Callable[..., Server], error: HalimedeError) -> None:
        with serve([error], [error]) as server, _client(server) as client:
            asks: list[Ask] = [lambda: client.generate("?"), lambda: client.stream("?").collect()]
            for ask in asks:
                with pytest.raises(type(error)) as caught:
                    ask()
                assert vars(caught.value) == vars(error)

    def test_between_chunks(self, serve: Callable[..., Server]) -> None:
        turn = ["a", Internal.of("step", 5, "failed")]
        with serve(turn) as server, _client(server) as client, client.stream("?") as stream:
            assert next(stream).text == "a"
            with pytest.raises(Internal, match=r"^INTERNAL: step: 5, failed$"):
                next(stream)

    def test_a_busy_server_is_retried(self, serve: Callable[..., Server]) -> None:
        with serve([BUSY], [BUSY], answer("a")) as server, _client(server, AT_ONCE) as client:
            assert client.stream("?").collect().text == "a"
        assert len(server.requests) == 3

    def test_a_stopped_server(self, serve: Callable[..., Server]) -> None:
        with serve() as server:
            pass
        with _client(server) as client:
            asks: list[Ask] = [lambda: client.generate("?"), client.health, client.models]
            for ask in asks:
                with pytest.raises(ConnectionFailed, match=r"no server at 127.0.0.1:\d+: .*refused"):
                    ask()

    def test_the_connection_breaks_between_chunks(self, serve: Callable[..., Server]) -> None:
        with serve(["a", Event.DROP]) as server, _client(server) as client:
            stream = client.stream("?")
            assert next(stream).text == "a"
            with pytest.raises(HalimedeError) as caught:
                next(stream)
        assert isinstance(caught.value, (ConnectionLost, Unavailable))

    def test_a_server_that_does_not_end_the_request_in_time(
        self, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("halimede.timeouts.GRACE_S", 0.0)
        with serve([HEARTBEAT, Event.HANG]) as server, _client(server, timeout=2.0) as client:
            client.health()  # opens the connection, so that the request reaches the server in time
            with pytest.raises(DeadlineExceeded):
                client.stream("?").collect()
            assert server.cancelled.wait(PATIENCE_S)

    @pytest.mark.anyio
    async def test_asynchronously(self, serve: Callable[..., Server]) -> None:
        turns: list[list[Step]] = [[BUSY], ["a", Internal.of("step", 5, "failed")]]
        with serve(*turns) as server:
            async with AsyncClient(server.url, retry=ONCE) as client:
                with pytest.raises(Unavailable):
                    await client.generate("?")
                with pytest.raises(Internal):
                    await client.stream("?").collect()
        async with AsyncClient(server.url, retry=ONCE) as client:
            with pytest.raises(ConnectionFailed):
                await client.generate("?")


class TestCancellation:
    def test_leaving_a_stream(self, serve: Callable[..., Server]) -> None:
        with serve(["a", Event.HANG]) as server, _client(server) as client:
            with client.stream("?") as stream:
                next(stream)
            assert server.cancelled.wait(PATIENCE_S)

    def test_closing_the_client(self, serve: Callable[..., Server]) -> None:
        with serve(["a", Event.HANG]) as server:
            client = _client(server)
            stream = client.stream("?")
            next(stream)
            client.close()
            assert server.cancelled.wait(PATIENCE_S)
            stream.close()

    @pytest.mark.anyio
    async def test_cancelling_the_task(self, serve: Callable[..., Server]) -> None:
        with serve(["a", Event.HANG]) as server:
            async with AsyncClient(server.url, retry=ONCE) as client:
                started = asyncio.Event()
                task = asyncio.create_task(_read(client, started))
                await started.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await asyncio.to_thread(server.cancelled.wait, PATIENCE_S)


async def _read(client: AsyncClient, started: asyncio.Event) -> None:
    async with client.stream("?") as stream:
        async for _ in stream:
            started.set()


class TestServer:
    def test_health(self, serve: Callable[..., Server]) -> None:
        with serve() as server, _client(server) as client:
            found = client.health()
            assert (found.ok, found.server_version, found.model_versions) == (True, "2.51.0", ("1",))
            other = client.health("other")
            assert (other.ready, other.model_ready, other.model_versions) == (True, False, ())

    def test_models(self, serve: Callable[..., Server]) -> None:
        with serve() as server, _client(server) as client:
            broken, model = client.models()
        assert (broken.state, broken.reason, broken.backend) == ("UNAVAILABLE", "no engine", None)
        assert (model.name, model.backend, model.steps) == ("smollm2", "ensemble", ("smollm2_engine",))
        assert (model.max_batch_size, model.inputs, model.outputs) == (1, ("text_input",), ("text_output",))

    def test_metrics_are_always_fetched_over_http(self, serve: Callable[..., Server]) -> None:
        with FakeHttpServer(metrics="up 1\n") as metrics, serve() as server:
            with _client(server, metrics_url=f"{metrics.url}/metrics") as client:
                assert client.metrics().total("up") == 1
            lost = _client(server, metrics_url=f"{metrics.url}/nothing")
            with lost, pytest.raises(NotFound):
                lost.metrics()

    @pytest.mark.anyio
    async def test_asynchronously(self, serve: Callable[..., Server]) -> None:
        with FakeHttpServer(metrics="up 1\n") as metrics, serve() as server:
            url = f"{metrics.url}/metrics"
            async with AsyncClient(server.url, metrics_url=url) as client:
                assert (await client.health()).ok
                assert len(await client.models()) == 2
                assert (await client.metrics()).total("up") == 1


class TestHttpOnly:
    def test_a_character_split_over_packets(self) -> None:
        event = b'data: {"text_output": "\xf0\x9f\x99\x82", "finish_reason": "stop"}\n\n'
        with FakeHttpServer([event[:24], event[24:]]) as server, _client(server) as client:
            assert client.stream("?").collect().text == "🙂"

    def test_an_error_under_status_200(self) -> None:
        body = b'{"error": "in ensemble \'smollm2\', UNAVAILABLE: queue: 64 waiting, limit 64"}'
        with FakeHttpServer([body], answer("a")) as server, _client(server, AT_ONCE) as client:
            assert client.generate("?").text == "a"
        assert len(server.requests) == 2

    @pytest.mark.parametrize("event", [b"data: {\n\n", b"data: []\n\n", b'data: {"text_output": 5}\n\n'])
    def test_malformed_events(self, event: bytes) -> None:
        with FakeHttpServer(["a", event]) as server, _client(server) as client:
            stream = client.stream("?")
            next(stream)
            with pytest.raises(ProtocolError):
                next(stream)

    def test_malformed_replies(self) -> None:
        fake = FakeHttpServer([b"<html>"])
        with fake as server, _client(server) as client, pytest.raises(ProtocolError):
            client.generate("?")

    def test_a_connection_that_breaks_before_the_answer_is_retried(self) -> None:
        with FakeHttpServer([Event.DROP], answer("a")) as server, _client(server, AT_ONCE) as client:
            assert client.generate("?").text == "a"


class TestWrongPort:
    def test_grpc_to_an_http_server_names_the_right_scheme(self) -> None:
        with FakeHttpServer() as server, pytest.raises(ConnectionFailed, match="use http://"):
            _ask(server.url.removeprefix("http://"))

    def test_http_to_a_grpc_server_names_the_right_scheme(self) -> None:
        with FakeGrpcServer() as server, pytest.raises(ConnectionFailed, match="use grpc://"):
            _ask(f"http://{server.url}")

    def test_an_unknown_host(self, serve: Callable[..., Server]) -> None:
        scheme = "http://" if serve is FakeHttpServer else ""
        with pytest.raises(ConnectionFailed, match=r"no server at nowhere\.invalid"):
            _ask(f"{scheme}nowhere.invalid")


def _ask(url: str) -> None:
    with Client(url, retry=ONCE) as client:
        client.generate("?")
