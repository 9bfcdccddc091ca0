"""The client: prompts and messages in, answers out; retries and deadlines between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

from halimede._async.repository import AsyncRepository
from halimede._async.stream import AsyncStream
from halimede._async.transport import AsyncTransport, connect
from halimede.api_key import ApiKey
from halimede.errors import HalimedeError, InvalidArgument, NotFound, ProtocolError, Unsupported
from halimede.results import Chunk, Generation, Health, Metrics, ModelCard, ModelInfo
from halimede.sampling import CallOptions, Message
from halimede.target import DEFAULT_URL, parse_target
from halimede.timeouts import KEEPALIVE_S, AsyncSleep, Clock, Deadline, RetryPolicy
from halimede.tls import Tls
from halimede.wire.inputs import checked_name
from halimede.wire.prometheus import parse_metrics
from halimede.wire.request import GenerateRequest, request_of

__all__ = ["AsyncClient"]


class AsyncClient:
    """A client of one server. Any number of requests may run at a time.

    url: `localhost:8001` or `grpc://…` for gRPC, `http://localhost:8000` for HTTP; `grpcs://` and
    `https://` with TLS. timeout: seconds for a whole request, retries included, after which the
    server ends it; `math.inf` for none. headers: sent with every request, over gRPC as metadata.
    metrics_url: where the server's metrics are; by default the port after those of HTTP and gRPC.
    tls: a CA in place of the system's, and a certificate of our own for mutual TLS.
    api_key: what a server wants that asks for one; anybody on the way reads it where there is no TLS.
    keepalive: seconds of silence after which the server is probed, and as many for it to answer, so that
    a node that has vanished is a ConnectionLost; over gRPC while a request runs. `math.inf` for never.
    transport, clock and sleep stand in for the network and time in tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = "smollm2",
        timeout: float = 120.0,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        metrics_url: str | None = None,
        tls: Tls | None = None,
        api_key: ApiKey | None = None,
        keepalive: float = KEEPALIVE_S,
        transport: AsyncTransport | None = None,
        clock: Clock = time.monotonic,
        sleep: AsyncSleep = asyncio.sleep,
    ) -> None:
        self._target = parse_target(url)
        self._model = model
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._transport = transport or connect(
            self._target, headers or {}, metrics_url, tls, api_key, keepalive
        )
        self._clock = clock
        self._sleep = sleep
        self._closed = False
        self._tasks: dict[str, str | None] = {}  # of the models that were asked for one

    async def generate(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        **options: Unpack[CallOptions],
    ) -> Generation:
        """The whole answer to a prompt as it stands, or to messages through the chat template."""
        return await self._open(prompt, messages, options, stream=False).collect()

    def stream(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncStream:
        """The answer chunk by chunk."""
        return self._open(prompt, messages, options, stream=True)

    async def chat(self, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Generation:
        """The whole answer to a conversation."""
        return await self.generate(messages=messages, **options)

    def chat_stream(self, messages: Sequence[Message], **options: Unpack[CallOptions]) -> AsyncStream:
        """The answer to a conversation, chunk by chunk."""
        return self.stream(messages=messages, **options)

    async def summarize(self, text: str, **options: Unpack[CallOptions]) -> Generation:
        """The whole summary of a text. Unsupported where the model's task is another."""
        return await self._open(text, None, options, stream=False, task="summarize").collect()

    def summarize_stream(self, text: str, **options: Unpack[CallOptions]) -> AsyncStream:
        """The summary of a text, chunk by chunk; beams cannot be streamed."""
        return self._open(text, None, options, stream=True, task="summarize")

    async def translate(self, text: str, **options: Unpack[CallOptions]) -> Generation:
        """The whole translation of a text. Unsupported where the model's task is another."""
        return await self._open(text, None, options, stream=False, task="translate").collect()

    def translate_stream(self, text: str, **options: Unpack[CallOptions]) -> AsyncStream:
        """The translation of a text, chunk by chunk; beams cannot be streamed."""
        return self._open(text, None, options, stream=True, task="translate")

    async def card(self, model: str | None = None, *, timeout: float = 10.0) -> ModelCard:
        """What a model is: its task, precision, size, quality and limits."""
        return await self._ready_transport().acard(self._name(model), timeout)

    async def load(self, model: str | None = None, *, timeout: float = 300.0) -> str:
        """Loads a model of the server's repository, or what is new of one that is loaded.

        Returns the version that is ready, warmed up; the other models serve on, and so does the
        version before until then, whose streams end in order. Over gRPC only. Raises NotFound with
        the names there are, and where the load fails the model's own reason.
        """
        return await self._repository().load(self._name(model), timeout)

    async def reload(self, model: str | None = None, *, timeout: float = 300.0) -> str:
        """As `load`, for a model that is loaded: its newest version, or its changed configuration.

        Raises Unavailable where it is not loaded.
        """
        return await self._repository().reload(self._name(model), timeout)

    async def unload(self, model: str | None = None, *, timeout: float = 300.0) -> None:
        """Has the model refuse requests, and returns when those in flight have ended and its memory is free.

        Raises NotFound with the names there are, DeadlineExceeded where requests outlast the timeout.
        """
        await self._repository().unload(self._name(model), timeout)

    async def models(self, *, timeout: float = 10.0) -> tuple[ModelInfo, ...]:
        """Every model of the server's repository, by name."""
        found = await self._ready_transport().amodels(timeout)
        return tuple(sorted(found, key=lambda model: (model.name, model.version)))

    async def health(self, model: str | None = None, *, timeout: float = 10.0) -> Health:
        """What the server says of itself and of the model; raises where nobody answers."""
        return await self._ready_transport().ahealth(self._name(model), timeout)

    async def metrics(self, *, timeout: float = 10.0) -> Metrics:
        """The server's Prometheus metrics, as they stand now."""
        return parse_metrics(await self._ready_transport().ametrics(timeout))

    async def aclose(self) -> None:
        """Ends the connections, and with them the requests in flight."""
        self._closed = True
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._target} {self._model}>"

    def _name(self, model: str | None) -> str:
        return checked_name("model", model or self._model)

    def _repository(self) -> AsyncRepository:
        return AsyncRepository(self._ready_transport(), self._clock, self._sleep)

    def _ready_transport(self) -> AsyncTransport:
        if self._closed:
            raise HalimedeError("this client is closed")
        return self._transport

    def _open(
        self,
        prompt: str | None,
        messages: Sequence[Message] | None,
        options: CallOptions,
        *,
        stream: bool,
        task: str | None = None,
    ) -> AsyncStream:
        request = request_of(prompt, messages, options, model=self._model, stream=stream)
        timeout_s = options.get("timeout", self._timeout)
        return AsyncStream(self._chunks(request, timeout_s, task), self._clock, streamed=stream)

    async def _require_task(self, model: str, task: str, timeout_s: float | None) -> None:
        """Models say their task once. One that says none, as it is not ours, may do anything."""
        if self._tasks.get(model, "") in (task, None):
            return
        try:  # again where it was another: the model may have been replaced
            self._tasks[model] = (await self._ready_transport().acard(model, timeout_s)).task
        except (InvalidArgument, NotFound, ProtocolError):
            self._tasks[model] = None
        found = self._tasks[model]
        if found not in (task, None):
            raise Unsupported.of("model", model, f"its task is {found}, not {task}")

    async def _chunks(
        self, request: GenerateRequest, timeout_s: float, task: str | None
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks without heartbeats, from the first attempt that brings one."""
        deadline = Deadline(timeout_s, self._clock)
        chunk: Chunk | None = None
        failures = 0
        while True:
            allowance_s = deadline.allowance_s()
            try:
                if task is not None:
                    await self._require_task(request.model, task, allowance_s)
                async with aclosing(self._attempt(request, allowance_s)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except HalimedeError as error:
                failures += 1
                delay_s = self._retry.delay_s(error, failures, deadline.remaining_s())
                if chunk is not None or delay_s is None:
                    raise
            await self._sleep(delay_s)

    async def _attempt(
        self, request: GenerateRequest, timeout_s: float | None
    ) -> AsyncGenerator[Chunk, None]:
        finished = False
        replies = self._ready_transport().agenerate(replace(request, timeout_s=timeout_s))
        async with aclosing(replies) as chunks:
            async for chunk in chunks:
                finished = chunk.finish_reason is not None or (finished and chunk.is_heartbeat)
                if not chunk.is_heartbeat:
                    yield chunk
        if not finished:
            raise ProtocolError("the answer did not end with a last chunk")
