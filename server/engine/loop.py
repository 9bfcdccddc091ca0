"""The engine loop: takes requests, runs the scheduler's steps, hands chunks to the outbox.

Threads: any thread may `submit` and `cancel`; one thread calls `run` (or `step`, in tests). The lock guards
the scheduler; models run and chunks are built outside it, by the loop's thread alone.

Every accepted request ends in exactly one final parcel: a chunk with a finish reason, or an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.errors import Cancelled, DeadlineExceeded, EngineError, InternalError, Unavailable
from engine.outbox import Chunk, Logprobs, Outbox, Responder
from engine.recorder import Recorder
from engine.request import FinishReason, Request
from engine.runner import Floats, Runner
from engine.sampler import Choice, TokenChooser, choose, describe
from engine.scheduler import Batch, Prefill, Row, Scheduler, Sequence
from engine.slots import Copy, Move
from engine.stops import TextStream
from engine.tokens import TokenTable

Clock = Callable[[], int]


@dataclass(slots=True, eq=False)
class Stream:
    """A sequence with what the loop needs to answer it. Times are monotonic nanoseconds."""

    sequence: Sequence
    chooser: TokenChooser
    responder: Responder
    handle: str
    logprobs: Logprobs = ()
    sent_tokens: int = 0
    sent_ns: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    end: EngineError | None = None


class Loop:
    """Collaborators are passed in; `clock` gives monotonic nanoseconds, `vocab` is the logits' width."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        table: TokenTable,
        vocab: int,
        outbox: Outbox,
        recorder: Recorder,
        clock: Clock,
        heartbeat_ns: int = 500_000_000,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._table = table
        self._vocab = vocab
        self._outbox = outbox
        self._recorder = recorder
        self._clock = clock
        self._heartbeat_ns = heartbeat_ns
        self._streams: dict[int, Stream] = {}
        self._work = threading.Condition()
        self._next_key = 0
        self._stopping = False

    def submit(self, request: Request, responder: Responder, handle: Callable[[int], str]) -> int:
        """Accept the request and return its key; raises EngineError at once when it cannot be accepted.

        `handle` makes the name under which the other ensemble steps can cancel it.
        """
        chooser = TokenChooser(request.sampling, request.prompt, self._scheduler.eos, self._vocab)
        words = tuple(word.encode() for word in request.sampling.stop_words)
        with self._work:
            if self._stopping:
                raise Unavailable("server", "stopping, accepts no more requests")
            self._next_key += 1
            key = self._next_key
            sequence = Sequence(key, request, TextStream(self._table, words), list(request.prompt))
            self._check_deadline(sequence)
            self._scheduler.add(sequence)
            stream = Stream(sequence, chooser, responder, handle(key), sent_ns=self._clock())
            self._streams[key] = stream
            self._work.notify()
        return key

    def cancel(self, key: int, reason: EngineError | None = None) -> None:
        """The request ends before the next step; an unknown key is one that has ended already."""
        with self._work:
            if stream := self._streams.get(key):
                stream.end = reason or Cancelled("request", "cancelled by the client")
                self._work.notify()

    def keys(self) -> list[int]:
        """The requests that have not ended."""
        with self._work:
            return list(self._streams)

    def run(self) -> None:
        """Step until `stop`, then end what is left."""
        try:
            while self._wait():
                self.step()
        except Exception as error:  # noqa: BLE001 (our bug, but nobody may wait for ever)
            self._recorder.fault(error)
            self.stop()
        with self._work:
            left = list(self._streams.values())
        for stream in left:
            self._end(stream, Unavailable("server", "stopped before the answer was complete"))

    def stop(self) -> None:
        with self._work:
            self._stopping = True
            self._work.notify()

    def step(self) -> bool:
        """One engine step; false when there was nothing to run."""
        self._end_overdue()
        with self._work:
            batch = self._scheduler.schedule()
        if batch and self._run_moves(batch):
            self._run_decode(batch.decode)
            self._run_prefill(batch.prefill)
        self._send_heartbeats()
        self._record_gauges()
        return batch is not None

    def _wait(self) -> bool:
        with self._work:
            self._work.wait_for(lambda: self._streams or self._stopping)
            return not self._stopping

    def _end_overdue(self) -> None:
        with self._work:
            streams = list(self._streams.values())
        now = self._clock()
        for stream in streams:
            deadline = stream.sequence.request.deadline_ns
            if stream.end:
                self._end(stream, stream.end)
            elif deadline is not None and now >= deadline:
                self._end(stream, _overdue(stream.sequence))

    def _check_deadline(self, sequence: Sequence) -> None:
        deadline = sequence.request.deadline_ns
        if deadline is not None and self._clock() >= deadline:
            raise _overdue(sequence)

    def _run_moves(self, batch: Batch) -> bool:
        try:
            for move in batch.moves:
                self._move(move)
        except Exception as error:  # noqa: BLE001  a step can fail in any way
            self._fail(batch.sequences, error, batch.moves)
            return False
        return True

    def _move(self, move: Move) -> None:
        if isinstance(move, Copy):
            self._runner.copy(move.source, move.target, move.tokens)
        else:
            self._runner.swap(move.a, move.b, move.tokens)

    def _run_decode(self, rows: tuple[Row, ...]) -> None:
        if not rows:
            return
        sequences = [row.sequence for row in rows if row.sequence]
        try:
            logits = self._runner.decode([r.token for r in rows], [r.position for r in rows])
            busy = [i for i, row in enumerate(rows) if row.sequence]
            choices = self._choose(logits if len(busy) == len(rows) else logits[busy], sequences)
        except Exception as error:  # noqa: BLE001  a step can fail in any way
            self._fail(sequences, error)
            return
        with self._work:
            self._scheduler.commit_decode(rows)
        self._advance(sequences, choices)

    def _run_prefill(self, prefill: Prefill | None) -> None:
        if prefill is None:
            return
        sequence = prefill.sequence
        if prefill.start == sequence.reused:
            self._recorder.started(self._clock() - sequence.request.arrival_ns)
        try:
            logits = self._runner.prefill(prefill.slot.index, prefill.start, prefill.tokens)
            choices = self._choose(logits, [sequence]) if prefill.last else []
        except Exception as error:  # noqa: BLE001  a step can fail in any way
            self._fail([sequence], error)
            return
        with self._work:
            self._scheduler.commit_prefill(prefill)
        if prefill.last:
            self._recorder.prompt(len(sequence.request.prompt), sequence.reused)
            self._advance([sequence], choices)

    def _choose(self, logits: Floats, sequences: list[Sequence]) -> list[Choice]:
        return choose(logits, [self._streams[sequence.key].chooser for sequence in sequences])

    def _advance(self, sequences: list[Sequence], choices: Iterable[Choice]) -> None:
        """Each sequence gets its token; those that are complete end, streams get a chunk."""
        now = self._clock()
        self._recorder.tokens(len(sequences))
        for sequence, choice in zip(sequences, choices, strict=True):
            stream = self._streams[sequence.key]
            self._time_token(stream, now)
            if sequence.request.sampling.num_logprobs is not None:
                stream.logprobs += (describe(choice, self._table),)
            finish = self._scheduler.append(sequence, choice.token)
            if finish:
                self._finish(stream, finish, now)
            elif sequence.request.stream:
                self._outbox.put(stream.responder, self._chunk(stream, now))

    def _time_token(self, stream: Stream, now: int) -> None:
        request = stream.sequence.request
        if stream.last_ns is None:
            stream.first_ns = now
            self._recorder.first_token(now - request.arrival_ns, request.stream)
        else:
            self._recorder.next_token(now - stream.last_ns, request.stream)
        stream.last_ns = now

    def _chunk(self, stream: Stream, now: int, finish: FinishReason | None = None) -> Chunk:
        sequence, request = stream.sequence, stream.sequence.request
        span = sequence.text.take(final=finish is not None)
        new = sequence.generated - stream.sent_tokens
        logprobs, stream.logprobs = stream.logprobs, ()
        stream.sent_tokens, stream.sent_ns = sequence.generated, now
        return Chunk(stream.handle, span, len(request.prompt), new, finish, logprobs, request.returns)

    def _finish(self, stream: Stream, finish: FinishReason, now: int) -> None:
        chunk = self._chunk(stream, now, finish)
        self._remove(stream)
        request = stream.sequence.request
        self._recorder.finished(finish.value, now - request.arrival_ns, request.stream)
        self._outbox.put(stream.responder, chunk)

    def _end(self, stream: Stream, error: EngineError) -> None:
        self._remove(stream)
        self._recorder.rejected(error.code.lower())
        self._outbox.put(stream.responder, error)

    def _remove(self, stream: Stream) -> None:
        with self._work:
            self._scheduler.remove(stream.sequence)
            del self._streams[stream.sequence.key]

    def _fail(self, sequences: list[Sequence], error: Exception, moves: tuple[Move, ...] = ()) -> None:
        """A failed step ends its own requests; the engine goes on."""
        self._recorder.fault(error)
        with self._work:
            self._scheduler.fail(sequences, moves)
            streams = [self._streams.pop(sequence.key) for sequence in sequences]
        for stream in streams:
            problem = InternalError(
                "engine", f"the step failed ({type(error).__name__}); the request was ended"
            )
            self._recorder.rejected(problem.code.lower())
            self._outbox.put(stream.responder, problem)

    def _send_heartbeats(self) -> None:
        """An empty chunk lets the next ensemble step see whether the client is still there."""
        now = self._clock()
        with self._work:
            streams = list(self._streams.values())
        for stream in streams:
            quiet = now - stream.sent_ns >= self._heartbeat_ns
            if quiet and stream.sequence.request.stream:
                # Without new tokens the chunk is empty, and joins with what comes before and after it.
                self._outbox.put(stream.responder, self._chunk(stream, now))

    def _record_gauges(self) -> None:
        with self._work:
            waiting, total = len(self._scheduler.waiting), len(self._streams)
            usage = self._scheduler.slots.usage
        self._recorder.gauges(waiting, total - waiting, usage)


def _overdue(sequence: Sequence) -> DeadlineExceeded:
    limit = sequence.request.timeout_us
    return DeadlineExceeded("timeout", f"{limit} us passed after {sequence.generated} tokens")
