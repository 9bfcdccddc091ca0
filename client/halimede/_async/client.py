"""The client: it sends prompts and messages, repeats failed requests, and returns answers."""

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

    url: `localhost:8001` or `grpc://…` for gRPC, `http://localhost:8000` for HTTP, `grpcs://…` or
    `https://…` for TLS. model: the default of all methods. timeout: seconds for a whole request with its
    retries, after which the server ends it; `math.inf` for none. retry: when a failed request is repeated.
    headers: sent with every request, over gRPC as metadata. metrics_url: the URL of the server's metrics;
    by default the port after those of HTTP and gRPC. tls: a CA to trust instead of the system's, and the
    client's certificate for mutual TLS. api_key: the key that the server requires; without TLS everyone on
    the network path can read it. keepalive: seconds of silence after which the server is probed, and
    within which it must answer, or the request raises ConnectionLost; over gRPC only while a request
    runs. `math.inf` for never. transport, clock and sleep replace the network and the time in tests.
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
        self._tasks: dict[str, str | None] = {}  # by model, where it was asked for; None for any

    async def generate(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        **options: Unpack[CallOptions],
    ) -> Generation:
        """The whole answer to a prompt, or to messages, which the server puts into its chat template."""
        return await self._open(prompt, messages, options, stream=False).collect()

    def stream(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncStream:
        """The answer to a prompt or messages, chunk by chunk."""
        return self._open(prompt, messages, options, stream=True)

    async def chat(self, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Generation:
        """The whole answer to a conversation."""
        return await self.generate(messages=messages, **options)

    def chat_stream(self, messages: Sequence[Message], **options: Unpack[CallOptions]) -> AsyncStream:
        """The answer to a conversation, chunk by chunk."""
        return self.stream(messages=messages, **options)

    async def summarize(self, text: str, **options: Unpack[CallOptions]) -> Generation:
        """The whole summary of a text. Raises Unsupported if the model has another task."""
        return await self._open(text, None, options, stream=False, task="summarize").collect()

    def summarize_stream(self, text: str, **options: Unpack[CallOptions]) -> AsyncStream:
        """The summary of a text, chunk by chunk. A beam search cannot be streamed."""
        return self._open(text, None, options, stream=True, task="summarize")

    async def translate(self, text: str, **options: Unpack[CallOptions]) -> Generation:
        """The whole translation of a text. Raises Unsupported if the model has another task."""
        return await self._open(text, None, options, stream=False, task="translate").collect()

    def translate_stream(self, text: str, **options: Unpack[CallOptions]) -> AsyncStream:
        """The translation of a text, chunk by chunk. A beam search cannot be streamed."""
        return self._open(text, None, options, stream=True, task="translate")

    async def card(self, model: str | None = None, *, timeout: float = 10.0) -> ModelCard:
        """The task, precision, size, quality and limits of a model."""
        return await self._ready_transport().acard(self._name(model), timeout)

    async def load(self, model: str | None = None, *, timeout: float = 300.0) -> str:
        """Loads a model of the server's repository, or the newest version of one that is loaded.

        Returns the version that serves when it is loaded and warmed up. Until then the previous version
        serves, and its streams run to their end. Other models are not affected. Works over gRPC only.
        Raises NotFound, which lists the models of the repository, or the model's own reason for a
        failed load.
        """
        return await self._repository().load(self._name(model), timeout)

    async def reload(self, model: str | None = None, *, timeout: float = 300.0) -> str:
        """Loads the newest version or the changed configuration of a loaded model, as `load` does.

        Raises Unavailable if the model is not loaded.
        """
        return await self._repository().reload(self._name(model), timeout)

    async def unload(self, model: str | None = None, *, timeout: float = 300.0) -> None:
        """Drains and unloads a model. Returns when its running requests have ended and its memory is free.

        Raises NotFound, which lists the models of the repository, and DeadlineExceeded if requests run
        longer than the timeout: the model then unloads when they end.
        """
        await self._repository().unload(self._name(model), timeout)

    async def models(self, *, timeout: float = 10.0) -> tuple[ModelInfo, ...]:
        """All models of the server's repository, sorted by name."""
        found = await self._ready_transport().amodels(timeout)
        return tuple(sorted(found, key=lambda model: (model.name, model.version)))

    async def health(self, model: str | None = None, *, timeout: float = 10.0) -> Health:
        """Whether the server and the model are ready. Raises ConnectionFailed if no server answers."""
        return await self._ready_transport().ahealth(self._name(model), timeout)

    async def metrics(self, *, timeout: float = 10.0) -> Metrics:
        """The current Prometheus metrics of the server."""
        return parse_metrics(await self._ready_transport().ametrics(timeout))

    async def aclose(self) -> None:
        """Closes the connections, which cancels the running requests."""
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
        """Raises Unsupported if the model has another task. Models without a card, not ours, may do any."""
        if self._tasks.get(model, "") in (task, None):
            return
        try:  # again after another task, because the model may have been replaced
            self._tasks[model] = (await self._ready_transport().acard(model, timeout_s)).task
        except (InvalidArgument, NotFound, ProtocolError):
            self._tasks[model] = None
        found = self._tasks[model]
        if found not in (task, None):
            raise Unsupported.of("model", model, f"its task is {found}, not {task}")

    async def _chunks(
        self, request: GenerateRequest, timeout_s: float, task: str | None
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of the first attempt that yields one, without heartbeats."""
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
