"""What the engine sends back: the thread that sends it, and how the detokenizer reads it.

Sending a response through Triton takes longer than handing it over, so a sender thread does it, and a slow
client never stalls a step. When a stream falls behind, what is pending for it is joined into one response.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from engine.core.errors import EngineError
from engine.core.request import FinishReason
from engine.core.stops import Piece
from engine.core.tokens import TokenTable
from engine.edge.metrics import Recorder

Logprobs = tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. `tokens` counts the new ones; `finish` is set on the last chunk only."""

    handle: str
    span: Piece
    prompt_tokens: int
    tokens: int
    finish: FinishReason | None = None
    logprobs: Logprobs = ()
    returns: tuple[str, ...] = ()

    def then(self, later: Chunk) -> Chunk:
        return replace(
            self,
            span=self.span.then(later.span),
            tokens=self.tokens + later.tokens,
            finish=later.finish,
            logprobs=self.logprobs + later.logprobs,
        )

    def to_json(self, table: str = "") -> str:
        """The protocol between the engine step and the detokenizer step.

        The text of the chunk is the bytes `skip:limit` of the tokens `ids`, taken together; `table` is the
        key of the table that has their bytes (engine.edge.artifact).
        """
        return json.dumps(
            {
                "handle": self.handle,
                "table": table,
                "ids": self.span.tokens,
                "skip": self.span.begin - self.span.base,
                "limit": self.span.end - self.span.base,
                "prompt_tokens": self.prompt_tokens,
                "tokens": self.tokens,
                "finish": self.finish.value if self.finish else "",
                "logprobs": self.logprobs,
                "return": self.returns,
            },
            separators=(",", ":"),
        )


class Responder(Protocol):
    """One request's way back to its client. The last call is `send` with `final`, or `fail`, exactly once."""

    def send(self, chunk: Chunk, final: bool) -> None: ...

    def fail(self, error: EngineError) -> None: ...


Parcel = Chunk | EngineError


class Outbox:
    """`put` hands a parcel over; `run` sends until `close`. A chunk with `finish`, or an error, is the last
    parcel. A failure to send one is recorded as a fault. `clock` gives monotonic nanoseconds.
    """

    def __init__(self, recorder: Recorder, clock: Callable[[], int]) -> None:
        self._recorder = recorder
        self._clock = clock
        self._texts_ns: dict[Responder, int] = {}  # of open streams: when text last went out
        self._pending: dict[Responder, Parcel] = {}
        self._ready = threading.Condition()
        self._closed = False

    def put(self, responder: Responder, parcel: Parcel) -> None:
        with self._ready:
            earlier = self._pending.get(responder)
            if isinstance(earlier, Chunk) and isinstance(parcel, Chunk):
                parcel = earlier.then(parcel)
            self._pending[responder] = parcel
            self._ready.notify()

    def close(self) -> None:
        """Send what is pending, then stop."""
        with self._ready:
            self._closed = True
            self._ready.notify()

    def run(self) -> None:
        while taken := self._take():
            self._send(*taken)

    def send_pending(self) -> int:
        """Send what is pending without waiting; how many parcels that was."""
        with self._ready:
            pending, self._pending = self._pending, {}
        for responder, parcel in pending.items():
            self._send(responder, parcel)
        return len(pending)

    def _take(self) -> tuple[Responder, Parcel] | None:
        with self._ready:
            self._ready.wait_for(lambda: self._pending or self._closed)
            if not self._pending:
                return None
            responder = next(iter(self._pending))
            return responder, self._pending.pop(responder)

    def _send(self, responder: Responder, parcel: Parcel) -> None:
        before_ns = self._texts_ns.pop(responder, None)
        try:
            if isinstance(parcel, Chunk):
                final = parcel.finish is not None
                responder.send(parcel, final=final)
                last_ns = self._timed(parcel, before_ns)
                if last_ns is not None and not final:
                    self._texts_ns[responder] = last_ns
            else:
                responder.fail(parcel)
        except Exception as error:  # noqa: BLE001  one broken stream must not end the thread that serves them all
            self._recorder.fault(error)

    def _timed(self, sent: Chunk, before_ns: int | None) -> int | None:
        """When text last went to the client: now, or earlier if the chunk has no text. The time from one text
        to the next is a gap; a chunk without text shows a reader nothing, so it neither ends a gap nor begins
        one.
        """
        if sent.span.begin == sent.span.end:
            return before_ns
        now = self._clock()
        if before_ns is not None:
            self._recorder.next_response(now - before_ns)
        return now


@dataclass(frozen=True, slots=True)
class Answer:
    """`num_input_tokens`, `num_output_tokens` and `logprobs` are None unless the client asked for them."""

    text: str
    finish_reason: str
    num_input_tokens: int | None
    num_output_tokens: int | None
    logprobs: str | None


@dataclass(frozen=True, slots=True)
class Decoded:
    handle: str
    answer: Answer


def decode_chunk(chunk: bytes, table: TokenTable) -> Decoded:
    """Raises ValueError or KeyError for what the engine did not write."""
    fields = json.loads(chunk)
    data = table.join(fields["ids"])[fields["skip"] : fields["limit"]]
    wanted = fields["return"]
    answer = Answer(
        data.decode("utf-8", "replace"),
        fields["finish"],
        fields["prompt_tokens"] if "num_input_tokens" in wanted else None,
        fields["tokens"] if "num_output_tokens" in wanted else None,
        json.dumps(fields["logprobs"], ensure_ascii=False) if "logprobs" in wanted else None,
    )
    return Decoded(fields["handle"], answer)


# What a client gets in place of a chunk that cannot be read; the engine is told, and ends the request.
FALLBACK = Answer("", "", None, None, None)


def read_handle(chunk: bytes) -> str:
    """The handle of a chunk that could not be decoded, or an empty string when even that cannot be read."""
    return _read(rb'"handle":"([^"]*)"', chunk)


def read_table(chunk: bytes) -> str:
    """The key of the token table that decodes a chunk."""
    return _read(rb'"table":"([^"]*)"', chunk)


def _read(pattern: bytes, chunk: bytes) -> str:
    found = re.search(pattern, chunk)
    return found[1].decode("ascii", "replace") if found else ""
