"""One request: how a planned one is encoded, how its answer is followed, and its Record at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

from halimede.errors import (
    ConnectionFailed,
    ConnectionLost,
    HalimedeError,
    InvalidArgument,
    ProtocolError,
    ServerError,
)
from halimede.results import Chunk
from halimede.sampling import Sampling
from halimede.wire.request import GenerateRequest
from halimede.wire.rest import encode_body
from loadtest.measure.record import Record
from loadtest.traffic.profile import Bad, Profile, Protocol, Task
from loadtest.traffic.schedule import Planned

# Classes of errors, as a Record names them. The server's own are its codes: UNAVAILABLE, INVALID_ARG, ...
CONNECTION = "connection"  # no server answered at the address
CONNECTION_LOST = "connection_lost"  # it broke before the answer was whole
PROTOCOL = "protocol"  # the answer is not in the wire format
TIMEOUT = "timeout"  # we waited for the request's timeout, and a moment for the server to say so
INCOMPLETE = "incomplete"  # the stream ended without a finish reason
UNFINISHED = "unfinished"  # still open when the drain ended
INTERRUPTED = "interrupted"  # still open when the run was cut off
NOT_SENT = "not_sent"  # as many requests were in flight as the generator may have
WORKER_LOST = "worker_lost"  # the worker that was to send it died
# A bad request is refused by this class; any other error of it is a fault.
REFUSED = InvalidArgument.CODE

# The server takes 0 and above.
_BAD_TEMPERATURE = -1.0
_NOT_JSON = "{not json"


def error_class(error: HalimedeError) -> str:
    match error:
        case ServerError():
            return error.code
        case ConnectionFailed():
            return CONNECTION
        case ConnectionLost():
            return CONNECTION_LOST
        case ProtocolError():
            return PROTOCOL
    return CONNECTION_LOST


def phase_of(profile: Profile, intended_s: float) -> str:
    """By when the request should have been sent."""
    if intended_s < profile.warmup_s:
        return "warmup"
    return "measure" if intended_s < profile.total_s else "drain"


@dataclass(frozen=True, slots=True)
class Ask:
    """`is_json` is false for a request whose JSON is to be broken on its way out."""

    request: GenerateRequest
    is_json: bool = True


def ask_of(planned: Planned, text: str, model: str) -> Ask:
    """`text` is the prompt of the plan, `model` the one to ask."""
    kind = planned.kind
    is_chat = kind.task is Task.CHAT and kind.bad is not Bad.EMPTY
    request = GenerateRequest(
        model=model,
        prompt=None if is_chat else text,
        messages=[{"role": "user", "content": text}] if is_chat else None,
        sampling=Sampling(
            max_tokens=planned.tokens_out,
            temperature=_BAD_TEMPERATURE if kind.bad is Bad.BAD_TEMPERATURE else kind.temperature,
            seed=planned.seed if kind.temperature > 0 else None,
            ignore_eos=kind.ignore_eos,
        ),
        stream=kind.protocol is not Protocol.UNARY,
        timeout_s=kind.timeout_s,
    )
    return Ask(request, is_json=kind.bad is not Bad.NOT_JSON)


def body_of(ask: Ask) -> bytes:
    """What is posted to generate and generate_stream."""
    return encode_body(ask.request) if ask.is_json else _NOT_JSON.encode()


def message_of(ask: Ask) -> Any:
    """A service_pb2.ModelInferRequest. Over gRPC the only JSON is that of the messages."""
    from halimede.wire import proto  # noqa: PLC0415  protobuf is not needed for HTTP

    message = proto.encode(ask.request)
    if not ask.is_json:
        name = "text_input" if ask.request.messages is None else "messages"
        (tensor,) = (tensor for tensor in message.inputs if tensor.name == name)
        tensor.name = "messages"
        tensor.contents.bytes_contents[0] = _NOT_JSON.encode()
    return message


@dataclass(slots=True)
class Tape:
    """What has come of one request so far. Pure; times are seconds since the start of the run."""

    planned: Planned
    model: str
    intended_s: float
    phase: str
    _sent_s: float | None = None
    _end_s: float | None = None
    _tokens_in: int | None = None
    _tokens_out: int = 0
    _chunks: list[tuple[float, int]] = field(default_factory=list)
    _finish_reason: str | None = None

    @property
    def leaves(self) -> bool:
        """Whether the client of the plan has seen enough, and goes before the end."""
        return self._has_enough and self._finish_reason is None

    @property
    def _has_enough(self) -> bool:
        enough = self.planned.kind.disconnect_after_tokens
        return enough is not None and self._tokens_out >= enough

    def sent(self, now_s: float) -> None:
        self._sent_s = now_s

    def take(self, chunk: Chunk, now_s: float) -> int:
        """The number of tokens in it."""
        tokens = chunk.num_output_tokens or 0
        self._tokens_out += tokens
        if tokens and self.planned.kind.protocol is not Protocol.UNARY:
            self._chunks.append((now_s, tokens))
        if chunk.num_input_tokens is not None:
            self._tokens_in = chunk.num_input_tokens
        self._finish_reason = chunk.finish_reason or self._finish_reason
        if self._finish_reason is not None or self.leaves:
            self._end_s = self._end_s or now_s
        return tokens

    def record(self, now_s: float, error: str | None) -> Record:
        """At the end of the request; `error` is None where nothing went wrong."""
        if error is None and self._finish_reason is None and not self._has_enough:
            error = INCOMPLETE
        kind = self.planned.kind
        return Record(
            request=self.planned.request,
            kind=kind.name,
            protocol=kind.protocol.value,
            model=self.model,
            intended_s=self.intended_s,
            sent_s=now_s if self._sent_s is None else self._sent_s,
            first_s=self._chunks[0][0] if self._chunks else None,
            end_s=now_s if error is not None or self._end_s is None else self._end_s,
            tokens_in=self.planned.tokens_in if self._tokens_in is None else self._tokens_in,
            tokens_out=self._tokens_out,
            chunks=tuple(self._chunks),
            finish_reason=self._finish_reason if error is None else None,
            error=error,
            # A bad request is to be refused, any other to end without an error.
            expected=error == (REFUSED if kind.bad else None),
            phase=self.phase,
        )


class Sender(Interface):
    async def connect(self) -> None:
        """Before the first request, so that it does not pay for the connection."""

    def send(self, ask: Ask, sent: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
        """Calls `sent` when the request leaves. Closing the generator leaves the request."""

    async def close(self) -> None: ...
