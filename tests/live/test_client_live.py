"""The client against the real server: both protocols, with and without asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, Unpack

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from halimede import (
    AsyncClient,
    AsyncStream,
    Chunk,
    Client,
    DeadlineExceeded,
    Generation,
    Health,
    InvalidArgument,
    Message,
    Metrics,
    ModelInfo,
    NotFound,
    RetryPolicy,
    Unavailable,
)
from halimede.sampling import CallOptions
from tests.fakes.relay import Relay
from tests.k8s.faults import halted, step_pid
from tests.live.artifacts import MODEL
from tests.live.conftest import CONTEXT, QUEUE, SLOTS
from tests.live.serving import Server, eventually
from tests.live.wire import WAIT_SECONDS
from tests.live.wire_grpc import GrpcWire

pytestmark = pytest.mark.e2e

PROMPT = "The capital of France is"
QUESTION = [Message(role="user", content="What is the capital of France?")]
STEPS = tuple(f"{MODEL}_{step}" for step in ("tokenizer", "engine", "detokenizer"))
ONCE = RetryPolicy(attempts=1)
# Far longer than a test waits for: it ends because somebody leaves, or by its deadline.
LONG: CallOptions = {"max_tokens": CONTEXT - 32, "ignore_eos": True}


class Streaming(Protocol):
    """What a test uses of a Stream; the block that it is left with cancels it."""

    @property
    def generation(self) -> Generation: ...
    def __iter__(self) -> Iterator[Chunk]: ...
    def __next__(self) -> Chunk: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Asking(Protocol):
    """What a test uses of a Client."""

    def generate(self, prompt: str, **options: Unpack[CallOptions]) -> Generation: ...
    def stream(self, prompt: str, **options: Unpack[CallOptions]) -> Streaming: ...
    def chat(self, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Generation: ...
    def chat_stream(self, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Streaming: ...
    def models(self) -> tuple[ModelInfo, ...]: ...
    def health(self, model: str | None = None) -> Health: ...
    def metrics(self) -> Metrics: ...


Connect = Callable[..., Asking]


class AwaitedStream:
    """An AsyncStream, read from outside its event loop."""

    def __init__(self, portal: BlockingPortal, stream: AsyncStream) -> None:
        self._portal = portal
        self._stream = stream

    @property
    def generation(self) -> Generation:
        return self._stream.generation

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        try:
            return self._portal.call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._portal.call(self._stream.aclose)


class AwaitedClient:
    """An AsyncClient with the methods of a Client, its event loop in another thread."""

    def __init__(self, portal: BlockingPortal, client: AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def generate(self, prompt: str, **options: Unpack[CallOptions]) -> Generation:
        return self._portal.call(partial(self._client.generate, prompt, **options))

    def stream(self, prompt: str, **options: Unpack[CallOptions]) -> AwaitedStream:
        return AwaitedStream(self._portal, self._client.stream(prompt, **options))

    def chat(self, messages: Sequence[Message], **options: Unpack[CallOptions]) -> Generation:
        return self._portal.call(partial(self._client.chat, messages, **options))

    def chat_stream(self, messages: Sequence[Message], **options: Unpack[CallOptions]) -> AwaitedStream:
        return AwaitedStream(self._portal, self._client.chat_stream(messages, **options))

    def models(self) -> tuple[ModelInfo, ...]:
        return self._portal.call(self._client.models)

    def health(self, model: str | None = None) -> Health:
        return self._portal.call(self._client.health, model)

    def metrics(self) -> Metrics:
        return self._portal.call(self._client.metrics)


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, small: Server) -> str:
    return f"http://{small.address.http}" if request.param == "http" else small.address.grpc


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, small: Server, url: str) -> Iterator[Connect]:
    """Makes a client that retries so and sleeps so in between."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal()) if request.param == "async" else None

        def make(retry: RetryPolicy = ONCE, sleep: Callable[[float], None] = time.sleep) -> Asking:
            options: dict[str, Any] = {"retry": retry, "metrics_url": small.address.metrics}
            if portal is None:
                return stack.enter_context(Client(url, sleep=sleep, **options))
            client = AsyncClient(url, sleep=lambda seconds: asyncio.to_thread(sleep, seconds), **options)
            stack.callback(portal.call, client.aclose)
            return AwaitedClient(portal, client)

        yield make


@pytest.fixture
def client(connect: Connect) -> Asking:
    return connect()


def _read(stream: Streaming) -> Generation:
    with stream:
        assert len(list(stream)) > 1
    return stream.generation


def _facts(answer: Generation) -> tuple[object, ...]:
    """All but the times."""
    counts = answer.num_input_tokens, answer.num_output_tokens
    return answer.text, answer.finish_reason, counts, answer.logprobs


def test_a_stream_is_the_whole_answer_in_pieces(client: Asking) -> None:
    whole = client.generate(PROMPT, max_tokens=12, num_logprobs=2, ignore_eos=True)
    assert _facts(_read(client.stream(PROMPT, max_tokens=12, num_logprobs=2, ignore_eos=True))) == _facts(
        whole
    )
    assert (whole.finish_reason, whole.num_input_tokens, whole.num_output_tokens) == ("length", 5, 12)
    assert len(whole.logprobs) == 12
    assert b"".join(token.bytes for token in whole.logprobs).decode() == whole.text
    assert all(len(token.top) == 2 and token.top[0].id == token.id for token in whole.logprobs)


def test_a_conversation_goes_through_the_chat_template(client: Asking) -> None:
    whole = client.chat(QUESTION, max_tokens=40)
    assert _facts(_read(client.chat_stream(QUESTION, max_tokens=40))) == _facts(whole)
    bare = client.generate(QUESTION[0]["content"], max_tokens=1)
    assert (whole.num_input_tokens or 0) > (bare.num_input_tokens or 0) > 0


def test_what_a_server_says_of_itself(client: Asking) -> None:
    models = {model.name: model for model in client.models()}
    assert set(models) == {MODEL, *STEPS}
    assert all(model.ready for model in models.values())
    assert (models[MODEL].backend, models[MODEL].steps) == ("ensemble", STEPS)
    assert {"text_input", "messages", "seed"} <= set(models[MODEL].inputs)
    health, other = client.health(), client.health("nobody")
    assert (health.ok, health.server_name, health.model_versions) == (True, "triton", ("1",))
    assert (other.ready, other.model_ready, other.model_versions) == (True, False, ())
    (sample,) = client.metrics().select("halimede_num_requests_running")
    assert sample.labels == {"model": f"{MODEL}_engine", "version": "1"}


def test_a_refusal_names_field_value_and_limit(client: Asking) -> None:
    for ask in (client.generate, lambda *a, **o: _read(client.stream(*a, **o))):
        with pytest.raises(InvalidArgument) as caught:
            ask(PROMPT, top_p=1.5)
        error = caught.value
        assert (error.code, error.field, error.value) == ("INVALID_ARG", "top_p", "1.5")
        assert error.limit == "must be a number in (0, 1]"
        with pytest.raises(InvalidArgument, match=r"prompt: .* tokens, must be at most"):
            ask("word " * 2 * CONTEXT)
        with pytest.raises(NotFound):
            ask(PROMPT, model="nobody")
    assert client.generate(PROMPT, max_tokens=2).num_output_tokens == 2


def test_the_server_ends_a_request_at_its_deadline(client: Asking, small: Server) -> None:
    overdue: CallOptions = {**LONG, "timeout": 1.0}
    before = small.metrics.total("requests_rejected_total", reason="deadline_exceeded")
    for ask in (client.generate, lambda *a, **o: _read(client.stream(*a, **o))):
        with pytest.raises(DeadlineExceeded, match=r"timeout: \d+ us passed after \d+ tokens"):
            ask(PROMPT, **overdue)
    assert _ended(small, "deadline_exceeded", before + 2)


def _ended(server: Server, reason: str, count: float) -> bool:
    """Whether so many requests end for that reason, and none is left."""

    def is_so() -> bool:
        metrics = server.metrics
        return metrics.idle and metrics.total("requests_rejected_total", reason=reason) == count

    return eventually(is_so)


def test_leaving_a_stream_frees_its_slot(client: Asking, small: Server) -> None:
    before = small.metrics.total("requests_rejected_total", reason="cancelled")
    with client.stream(PROMPT, **LONG) as stream:
        assert next(stream).text
        assert eventually(lambda: small.metrics.total("num_requests_running") == 1)
    assert stream.generation.finish_reason is None
    assert _ended(small, "cancelled", before + 1)


def test_a_full_server_is_asked_again(connect: Connect, small: Server) -> None:
    sleeps: list[float] = []
    with _filled(small) as leave:

        def make_room(seconds: float) -> None:
            sleeps.append(seconds)
            leave()
            assert eventually(lambda: small.metrics.idle)

        with pytest.raises(Unavailable) as caught:
            connect().generate(PROMPT)
        assert (caught.value.field, caught.value.value) == ("queue", f"{QUEUE} requests waiting")
        answer = connect(RetryPolicy(attempts=2), make_room).generate(PROMPT, max_tokens=2)
    assert answer.num_output_tokens == 2
    assert len(sleeps) == 1


@contextmanager
def _filled(server: Server) -> Iterator[Callable[[], None]]:
    """Every slot and every place in the queue is taken, until what this gives is called."""
    with GrpcWire(server.address) as wire, ExitStack() as streams:
        for _ in range(SLOTS + QUEUE):
            stream = streams.enter_context(closing(wire.open(text_input=PROMPT, stream=True, **LONG)))
            next(stream)  # a token, or the heartbeat of one that waits
        assert eventually(lambda: server.metrics.total("num_requests_waiting") == QUEUE)
        yield streams.close


def test_an_answer_that_is_long_in_coming_is_not_taken_for_a_server_that_has_gone(small: Server) -> None:
    """As a whole it comes without a heartbeat; Triton by itself ends a connection at the fourth ping."""
    with (
        Relay(small.address.grpc) as relay,
        Client(relay.url, model=MODEL, retry=ONCE, keepalive=0.5) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        found = pool.submit(client.generate, PROMPT, max_tokens=600, ignore_eos=True)
        assert eventually(lambda: small.metrics.total("num_requests_running") == 1)
        with halted(step_pid(small, f"{MODEL}_engine")):
            relay.wait_for_pings(5)
        assert found.result(WAIT_SECONDS).num_output_tokens == 600
