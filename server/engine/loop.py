"""The engine loop: takes requests, runs the scheduler's steps, hands chunks to the outbox.

Threads: any thread may `submit` and `cancel`; one thread calls `run` (or `step`, in tests). The lock guards
the scheduler; models run and chunks are built outside it, by the loop's thread alone.

Every accepted request ends in exactly one final parcel: a chunk with a finish reason, or an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from engine.batch import Batch, Encode, Prefill, Sequence
from engine.errors import Cancelled, EngineError, InternalError, Unavailable
from engine.outbox import Outbox, Responder
from engine.recorder import Recorder
from engine.request import FinishReason, Request
from engine.runner import Floats, Runner
from engine.sampler import Choice, choose, describe
from engine.scheduler import Scheduler
from engine.slots import Copy, Move
from engine.stream import Encoder, Intake, Stream
from engine.tokens import TokenTable

Clock = Callable[[], int]


class Loop:
    """Collaborators are passed in; `clock` gives monotonic nanoseconds, `vocab` is the logits' width.
    `encoder`: of a model that has one.
    """

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
        encoder: Encoder | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._table = table
        self._intake = Intake(scheduler, table, vocab, encoder)
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
        with self._work:
            self._next_key += 1
            key = self._next_key
        stream = self._intake.open(key, request, responder, handle)
        with self._work:
            if self._stopping:
                raise Unavailable("server", "stopping, accepts no more requests")
            stream.sent_ns = self._clock()
            if overdue := stream.overdue(stream.sent_ns):
                raise overdue
            self._scheduler.add(stream.sequence)
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
            self._run_decode(batch)
            self._run_prefill(batch.prefill)
            self._run_encode(batch.encode)
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
            if end := stream.end or stream.overdue(now):
                self._end(stream, end)

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
            self._runner.copy(move.source, move.target, move.tokens, start=move.start, cross=move.cross)
        else:
            self._runner.swap(move.a, move.b, move.tokens)

    def _run_decode(self, batch: Batch) -> None:
        rows, searches = batch.decode, batch.searches
        if not rows:
            return
        busy = [i for i, row in enumerate(rows) if row.lane and row.lane.sequence not in searches]
        sequences = [row.sequence for row in rows if row.sequence and row.sequence not in searches]
        try:
            logits = self._runner.decode([r.token for r in rows], [r.position for r in rows])
            theirs = [logits[[lane.slot.index for lane in search.lanes]] for search in searches]
            choices = self._choose(logits if len(busy) == len(rows) else logits[busy], sequences)
        except Exception as error:  # noqa: BLE001  a step can fail in any way
            self._fail(batch.decoding, error)
            return
        with self._work:
            self._scheduler.commit_decode(rows)
        self._advance(sequences, choices)
        for search, scores in zip(searches, theirs, strict=True):
            self._run_search(search, scores)

    def _run_prefill(self, prefill: Prefill | None) -> None:
        if prefill is None:
            return
        sequence = prefill.sequence
        if prefill.start == sequence.reused:
            self._recorder.started(self._clock() - sequence.request.arrival_ns)
        try:
            logits = self._runner.prefill(prefill.slot.index, prefill.start, prefill.tokens)
            single = prefill.last and sequence.rows == 1
            choices = self._choose(logits, [sequence]) if single else []
        except Exception as error:  # noqa: BLE001  a step can fail in any way
            self._fail([sequence], error)
            return
        with self._work:
            self._scheduler.commit_prefill(prefill)
        if not prefill.last:
            return
        self._recorder.prompt(len(sequence.request.prompt), sequence.reused)
        if single:
            self._advance([sequence], choices)
        else:
            logits = logits.copy()  # the fork is a call of the runner
            if self._fork(sequence):
                self._run_search(sequence, logits)

    def _run_encode(self, encode: Encode | None) -> None:
        if encode is None:
            return
        sequence, source = encode.sequence, encode.sequence.request.prompt
        self._recorder.started(self._clock() - sequence.request.arrival_ns)
        try:
            if not encode.held:
                self._runner.encode(encode.slot.index, source)
        except Exception as error:  # noqa: BLE001  a step can fail in any way
            self._fail([sequence], error)
            return
        with self._work:
            self._scheduler.commit_encode(encode)
        self._recorder.prompt(len(source), sequence.reused)
        self._fork(sequence)

    def _fork(self, sequence: Sequence) -> bool:
        """All rows of a search hold what the first one does; false when that failed."""
        with self._work:
            moves = self._scheduler.fork(sequence)
        try:
            for move in moves:
                self._move(move)
        except Exception as error:  # noqa: BLE001  a step can fail in any way
            self._fail([sequence], error)
            return False
        return True

    def _run_search(self, sequence: Sequence, logits: Floats) -> None:
        """One step of a beam search, from the logits of its rows."""
        stream = self._streams[sequence.key]
        search = stream.search
        assert search is not None
        try:
            branches = search.advance(logits)
            if not search.done:
                with self._work:
                    moves = self._scheduler.branch(sequence, branches)
                for move in moves:
                    self._move(move)
        except Exception as error:  # noqa: BLE001  a step can fail in any way
            self._fail([sequence], error)
            return
        if search.done:
            self._complete(stream, search.best.tokens if search.best else ())

    def _choose(self, logits: Floats, sequences: list[Sequence]) -> list[Choice | None]:
        streams = [self._streams[sequence.key] for sequence in sequences]
        return choose(logits, [stream.chooser for stream in streams if stream.chooser])

    def _advance(self, sequences: list[Sequence], choices: Iterable[Choice | None]) -> None:
        """Each sequence gets its token; those that are complete end, streams get a chunk."""
        now = self._clock()
        self._recorder.tokens(len(sequences))
        for sequence, choice in zip(sequences, choices, strict=True):
            if choice is None:
                self._fail([sequence], FloatingPointError("the model returned logits that are not finite"))
                continue
            stream = self._streams[sequence.key]
            self._time_token(stream, now)
            if sequence.request.sampling.num_logprobs is not None:
                stream.logprobs += (describe(choice, self._table),)
            finish = self._scheduler.append(sequence, choice.token)
            if finish:
                self._finish(stream, finish, now)
            elif sequence.request.stream:
                self._outbox.put(stream.responder, stream.chunk(now))

    def _complete(self, stream: Stream, answer: tuple[int, ...]) -> None:
        """The answer of a search, which comes all at once."""
        now = self._clock()
        self._recorder.tokens(len(answer))
        self._time_token(stream, now)
        self._finish(stream, self._scheduler.complete(stream.sequence, answer), now)

    def _time_token(self, stream: Stream, now: int) -> None:
        request = stream.sequence.request
        if stream.last_ns is None:
            stream.first_ns = now
            self._recorder.first_token(now - request.arrival_ns, request.stream)
        else:
            self._recorder.next_token(now - stream.last_ns, request.stream)
        stream.last_ns = now

    def _finish(self, stream: Stream, finish: FinishReason, now: int) -> None:
        chunk = stream.chunk(now, finish)
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
                self._outbox.put(stream.responder, stream.chunk(now))

    def _record_gauges(self) -> None:
        with self._work:
            waiting, total = len(self._scheduler.waiting), len(self._streams)
            usage = self._scheduler.slots.usage
        self._recorder.gauges(waiting, total - waiting, usage)
