"""Requests that the engine accepts or refuses: what chooses their tokens, what was sent, how they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from engine.core.errors import DeadlineExceeded, EngineError, InternalError, InvalidArgument, NotFinite
from engine.core.pacing import Responses
from engine.core.request import FinishReason, Request
from engine.core.scheduler import Scheduler
from engine.core.sequence import Sequence
from engine.core.slots import Move
from engine.core.stops import TextStream
from engine.core.tokens import TokenTable, Vocabulary
from engine.edge.chunks import Chunk, Logprobs, Outbox, Responder
from engine.edge.metrics import Recorder
from engine.edge.traces import Ending, Trace
from engine.sampling.beams import BeamSearch
from engine.sampling.sampler import Choice, TokenChooser, check_ids, check_prompt, logprob_entry

Clock = Callable[[], int]


@dataclass(slots=True, eq=False)
class Stream:
    """A sequence with what the loop needs to answer it: a chooser, or a search. Times are monotonic
    nanoseconds.
    """

    sequence: Sequence
    chooser: TokenChooser | None
    search: BeamSearch | None
    responder: Responder
    handle: str
    logprobs: Logprobs = ()
    sent_tokens: int = 0
    sent_ns: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    end: EngineError | None = None
    trace: Trace | None = None

    def chunk(self, now: int, finish: FinishReason | None = None) -> Chunk:
        """What is new since the last chunk; it may be empty."""
        sequence, request = self.sequence, self.sequence.request
        span = sequence.text.take(final=finish is not None)
        new = sequence.generated - self.sent_tokens
        logprobs, self.logprobs = self.logprobs, ()
        self.sent_tokens, self.sent_ns = sequence.generated, now
        return Chunk(self.handle, span, len(request.prompt), new, finish, logprobs, request.returns)

    def due(self, responding: bool) -> bool:
        """Whether what is new goes out now: the first token always, later ones when all streams' do."""
        return self.sequence.request.stream and (responding or not self.sent_tokens)

    def overdue(self, now: int) -> DeadlineExceeded | None:
        """The error when the request's own deadline has passed."""
        request = self.sequence.request
        if request.deadline_ns is None or now < request.deadline_ns:
            return None
        done = self.search.generated if self.search else self.sequence.generated
        return DeadlineExceeded("timeout", f"{request.timeout_us} us passed after {done} tokens")


class Streams:
    """The streams that have not ended. Each ends in exactly one final parcel: a chunk with a finish reason,
    or an error.

    The lock guards the scheduler and the register; only the loop's thread ends a stream.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        table: TokenTable,
        outbox: Outbox,
        recorder: Recorder,
        clock: Clock,
        lock: threading.Condition,
        interval: int = 0,
    ) -> None:
        self._scheduler = scheduler
        self._table = table
        self._outbox = outbox
        self._recorder = recorder
        self._clock = clock
        self._lock = lock
        self._responses = Responses(interval)
        self._responding = True
        self._streams: dict[int, Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, key: int) -> Stream:
        return self._streams[key]

    def get(self, key: int) -> Stream | None:
        return self._streams.get(key)

    def add(self, stream: Stream) -> None:
        """Raises what the scheduler raises; the caller holds the lock."""
        self._scheduler.add(stream.sequence)
        self._streams[stream.sequence.key] = stream

    def all(self) -> list[Stream]:
        with self._lock:
            return list(self._streams.values())

    def decoded(self) -> None:
        """Called after a decode step: its tokens, and those held back, go out now or with later ones."""
        self._responding = self._responses.decoded(self._clock(), len(self._scheduler.running))

    def advance(
        self, sequences: list[Sequence], choices: list[Choice | None], more: frozenset[int] = frozenset()
    ) -> None:
        """Each sequence gets its token; complete sequences end, and streams get a chunk.

        Sequences whose key is in `more` get another token of the same step, and their chunk with it.
        """
        now = self._clock()
        self._recorder.tokens(len(sequences) - choices.count(None))
        for sequence, choice in zip(sequences, choices, strict=True):
            if choice is None:
                self.fail([sequence], NotFinite())
                continue
            stream = self._streams[sequence.key]
            self._time_token(stream, now)
            if sequence.request.sampling.num_logprobs is not None:
                stream.logprobs += (logprob_entry(choice, self._table),)
            finish = self._scheduler.append(sequence, choice.token)
            if finish:
                self._finish(stream, finish, now)
            elif sequence.key not in more and stream.due(self._responding):
                self.send(stream, now)

    def complete(self, stream: Stream, answer: tuple[int, ...]) -> None:
        """The answer of a search, which comes all at once."""
        now = self._clock()
        self._recorder.tokens(len(answer))
        self._time_token(stream, now)
        self._finish(stream, self._scheduler.complete(stream.sequence, answer), now)

    def send(self, stream: Stream, now: int) -> None:
        """Send what is new; without new tokens an empty chunk, which joins with the chunks before and after
        it.
        """
        self._outbox.put(stream.responder, stream.chunk(now))

    def end(self, stream: Stream, error: EngineError) -> None:
        """End a stream before its answer is complete."""
        try:
            with self._lock:
                self._scheduler.remove(stream.sequence)
            self._recorder.rejected(error.code.lower())
        finally:
            self._answer(stream, error)
        self._trace_refusal(stream, error)

    def fail(self, sequences: list[Sequence], error: Exception, moves: Iterable[Move] = ()) -> None:
        """A failed step ends its own requests; the engine goes on."""
        self._recorder.fault(error)
        problem = f"the step failed ({type(error).__name__}); the request was ended"
        answer = error if isinstance(error, NotFinite) else InternalError("engine", problem)
        streams = [self._streams[sequence.key] for sequence in sequences]
        try:
            with self._lock:
                self._scheduler.fail(sequences, moves)
            for _ in streams:
                self._recorder.rejected(answer.code.lower())
        finally:
            for stream in streams:
                self._answer(stream, answer)
        for stream in streams:
            self._trace_refusal(stream, answer)

    def abandon(self, error: EngineError) -> None:
        """End all streams after a bug that may have left the scheduler in any state, so without the
        scheduler.
        """
        for stream in self.all():
            with suppress(Exception):  # the counters may be what has failed
                self._recorder.rejected(error.code.lower())
            self._answer(stream, error)

    def _finish(self, stream: Stream, finish: FinishReason, now: int) -> None:
        chunk, request = stream.chunk(now, finish), stream.sequence.request
        try:
            with self._lock:
                self._scheduler.remove(stream.sequence)
            self._recorder.finished(finish.value, now - request.arrival_ns, request.stream)
        finally:
            self._answer(stream, chunk)
        if stream.trace:
            stream.trace.ended(_ending(stream, now, finish=finish.value))

    def _answer(self, stream: Stream, final: Chunk | EngineError) -> None:
        """Put the final parcel. The stream leaves the register first, so that no bug gives it another."""
        with self._lock:
            if self._streams.pop(stream.sequence.key, None) is None:
                return
        try:
            self._outbox.put(stream.responder, final)
        except Exception:  # it joins chunks; an error joins nothing
            self._outbox.put(
                stream.responder, InternalError("engine", "the answer could not be put together")
            )
            raise

    def _trace_refusal(self, stream: Stream, error: EngineError) -> None:
        if stream.trace:
            stream.trace.ended(_ending(stream, self._clock(), error=error))

    def _time_token(self, stream: Stream, now: int) -> None:
        request = stream.sequence.request
        if stream.last_ns is None:
            stream.first_ns = now
            self._recorder.first_token(now - request.arrival_ns, request.stream)
        else:
            self._recorder.next_token(now - stream.last_ns, request.stream)
        stream.last_ns = now


def _ending(stream: Stream, now: int, finish: str = "", error: EngineError | None = None) -> Ending:
    sequence = stream.sequence
    prompt, reused = len(sequence.request.prompt), sequence.reused
    return Ending(now, prompt, reused, sequence.generated, finish, error)


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder reads ids below `vocab`. Answers begin after `decoder_start`, if the model has one and the
    request names no other. With `leading_space` they are spelled with one space too many.
    """

    vocab: int
    decoder_start: int | None
    leading_space: bool = False


class Intake:
    """Turns requests into streams; `vocab` is the decoder's."""

    def __init__(self, scheduler: Scheduler, table: TokenTable, vocab: int, encoder: Encoder | None) -> None:
        self._scheduler = scheduler
        self._vocabulary = Vocabulary(vocab, scheduler.eos, table)
        self._encoder = encoder

    def open(self, key: int, request: Request, responder: Responder, handle: Callable[[int], str]) -> Stream:
        """Raises InvalidArgument for what the model cannot do."""
        self._scheduler.check(request)
        check_ids(request.sampling, self._vocabulary.size)
        check_prompt(request.prompt, self._encoder.vocab if self._encoder else self._vocabulary.size)
        given = self._given(request)
        words = tuple(word.encode() for word in request.sampling.stop_words)
        drop_space = self._encoder is not None and self._encoder.leading_space
        sequence = Sequence(key, request, TextStream(self._vocabulary.table, words, drop_space), list(given))
        chooser, search = self._decider(request, given)
        return Stream(sequence, chooser, search, responder, handle(key))

    def _decider(
        self, request: Request, given: tuple[int, ...]
    ) -> tuple[TokenChooser | None, BeamSearch | None]:
        sampling = request.sampling
        longest = min(len(given) + sampling.max_tokens, self._scheduler.slots.capacity)
        if sampling.num_beams > 1:
            return None, BeamSearch(sampling, given, longest, self._vocabulary)
        return TokenChooser(sampling, given, longest, self._vocabulary), None

    def _given(self, request: Request) -> tuple[int, ...]:
        """The tokens that the decoder begins with."""
        start = request.sampling.decoder_start_token_id
        if self._encoder is None:
            if start is not None:
                problem = f"{start}, must be left out: this model has no encoder"
                raise InvalidArgument("decoder_start_token_id", problem)
            return request.prompt
        if start is None:
            start = self._encoder.decoder_start
        if start is None:
            raise InvalidArgument("decoder_start_token_id", "left out, must be given: this model names none")
        return (start,)
