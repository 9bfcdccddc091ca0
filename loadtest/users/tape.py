"""What comes of one request, as it comes, and the Record of it at the end. Pure: times are passed in."""

from __future__ import annotations

from halimede.results import Chunk
from loadtest.measure.record import Record
from loadtest.traffic.mix import Protocol
from loadtest.traffic.profile import Profile
from loadtest.traffic.schedule import Planned
from loadtest.users.faults import INCOMPLETE, REFUSED


def phase_of(profile: Profile, intended_s: float) -> str:
    """By when the request should have been sent."""
    if intended_s < profile.warmup_s:
        return "warmup"
    return "measure" if intended_s < profile.total_s else "drain"


class Tape:
    """Times are seconds since the start of the run."""

    def __init__(self, planned: Planned, model: str, intended_s: float, phase: str) -> None:
        self._planned = planned
        self._model = model
        self._intended_s = intended_s
        self._phase = phase
        self._sent_s: float | None = None
        self._end_s: float | None = None
        self._tokens_in: int | None = None
        self._tokens_out = 0
        self._chunks: list[tuple[float, int]] = []
        self._finish_reason: str | None = None

    @property
    def is_sent(self) -> bool:
        return self._sent_s is not None

    @property
    def leaves(self) -> bool:
        """Whether the client of the plan has seen enough, and goes before the end."""
        enough = self._planned.kind.disconnect_after_tokens
        return enough is not None and self._tokens_out >= enough and self._finish_reason is None

    def sent(self, now_s: float) -> None:
        self._sent_s = now_s

    def take(self, chunk: Chunk, now_s: float) -> int:
        """The number of tokens in it."""
        tokens = chunk.num_output_tokens or 0
        self._tokens_out += tokens
        if tokens and self._planned.kind.protocol is not Protocol.UNARY:
            self._chunks.append((now_s, tokens))
        if chunk.num_input_tokens is not None:
            self._tokens_in = chunk.num_input_tokens
        self._finish_reason = chunk.finish_reason or self._finish_reason
        if self._finish_reason is not None or self.leaves:
            self._end_s = self._end_s or now_s
        return tokens

    def record(self, now_s: float, error: str | None) -> Record:
        """At the end of the request; `error` is None where nothing went wrong."""
        if error is None and self._finish_reason is None and not self._is_left:
            error = INCOMPLETE
        finished = error is None and self._finish_reason is not None
        return Record(
            request=self._planned.request,
            kind=self._planned.kind.name,
            protocol=self._planned.kind.protocol.value,
            model=self._model,
            intended_s=self._intended_s,
            sent_s=now_s if self._sent_s is None else self._sent_s,
            first_s=self._chunks[0][0] if self._chunks else None,
            end_s=now_s if error is not None or self._end_s is None else self._end_s,
            tokens_in=self._planned.tokens_in if self._tokens_in is None else self._tokens_in,
            tokens_out=self._tokens_out,
            chunks=tuple(self._chunks),
            finish_reason=self._finish_reason if finished else None,
            error=error,
            expected=self._is_expected(error),
            phase=self._phase,
        )

    @property
    def _is_left(self) -> bool:
        enough = self._planned.kind.disconnect_after_tokens
        return enough is not None and self._tokens_out >= enough

    def _is_expected(self, error: str | None) -> bool:
        """A bad request is to be refused, any other to end without an error."""
        return error == (REFUSED if self._planned.kind.bad else None)
