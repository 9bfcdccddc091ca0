"""Carries out one batch: the model runs, its logits become tokens, and failed requests end.

A call of the runner can fail in any way; then the requests of that call end, and no others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import accumulate

import numpy as np

from engine.core.scheduler import Scheduler
from engine.core.sequence import Batch, Encode, Lane, Prefill, Row, Sequence
from engine.core.slots import Copy, Move
from engine.edge.metrics import Recorder
from engine.runners.runner import Floats, Run, Runner, Verifier
from engine.sampling.sampler import Choice, TokenChooser, choose
from engine.streams import Clock, Streams


class Steps:
    """The lock guards the scheduler; models run outside it."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        streams: Streams,
        recorder: Recorder,
        clock: Clock,
        lock: threading.Condition,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._streams = streams
        self._recorder = recorder
        self._clock = clock
        self._lock = lock

    def run(self, batch: Batch) -> None:
        try:
            self._move(batch.moves)
        except Exception as error:  # noqa: BLE001  see above
            self._streams.fail(batch.sequences, error, batch.moves)
            return
        prefill = batch.prefill
        if prefill and prefill.start == prefill.sequence.reused:
            self._started(prefill.sequence)
        if prefill and batch.decode and not batch.searches and isinstance(self._runner, Verifier):
            self._both(batch, prefill)
            return
        if batch.decode:
            self._decode(batch)
        if prefill:
            self._prefill(prefill)
        if batch.encode:
            self._encode(batch.encode)

    def _move(self, moves: Iterable[Move]) -> None:
        for move in moves:
            if isinstance(move, Copy):
                self._runner.copy(move.source, move.target, move.tokens, start=move.start, cross=move.cross)
            else:
                self._runner.swap(move.a, move.b, move.tokens)

    def _decode(self, batch: Batch) -> None:
        if any(row.draft for row in batch.decode):
            self._verify(batch)
        else:
            self._decode_rows(batch)

    def _decode_rows(self, batch: Batch) -> None:
        rows, searches = batch.decode, batch.searches
        lanes = [row.lane for row in rows]
        busy = [i for i, lane in enumerate(lanes) if lane and lane.sequence not in searches]
        sequences = [lane.sequence for lane in lanes if lane and lane.sequence not in searches]
        began = self._clock()
        try:
            logits = self._runner.decode([r.token for r in rows], [r.position for r in rows])
            theirs = [logits[[lane.slot.index for lane in search.lanes]] for search in searches]
            choices = self._choose(logits if len(busy) == len(rows) else logits[busy], sequences)
        except Exception as error:  # noqa: BLE001  see above
            self._streams.fail(batch.decoding, error)
            return
        with self._lock:
            self._scheduler.commit_decode(rows, self._seconds_since(began))
        self._streams.decoded()
        self._streams.advance(sequences, choices)
        for search, scores in zip(searches, theirs, strict=True):
            self._search(search, scores)

    def _both(self, batch: Batch, prefill: Prefill) -> None:
        """Decode rows and a chunk, in one call; in two calls to time them, or to find which of them failed.

        The rows are then second: either way their tokens come at the end of a step, so that there is one
        chunk between two tokens of a stream.
        """
        found = self._verify(batch, prefill) if batch.together else None
        if found:
            self._prefilled(prefill, *found, together=True)
            return
        self._prefill(prefill)
        self._verify(batch)

    def _verify(self, batch: Batch, prefill: Prefill | None = None) -> tuple[Floats, float] | None:
        """One call of the model over each row's token, its draft, and the chunk: the weights are read once.

        Each sequence chooses its tokens one after the other, from its own logits, as it would without a
        draft, for as long as what it chose is what was proposed: the logits behind that are the answer's.

        If the model fails, all decoding sequences end; if a choice fails, those whose tokens it chooses:
        one sequence in a step with drafts, otherwise all.

        With a chunk, returns the logits after it and the seconds that the step took; None if the model
        failed. The caller then runs decode and chunk separately, to find out which of them fails.
        """
        began = self._clock()
        rows = [(row, row.lane) for row in batch.decode if row.lane]
        try:
            logits, parts = self._computed(rows, prefill)
            choosers = [self._chooser(lane) for _, lane in rows]
        except Exception as error:  # noqa: BLE001  whatever it is, these requests end and no others
            if prefill:
                self._recorder.fault(error)
            else:
                self._streams.fail(batch.decoding, error)
            return None
        seconds = self._seconds_since(began)
        with self._lock:
            self._scheduler.commit_decode(batch.decode, None if prefill else seconds)
        self._streams.decoded()
        if any(row.draft for row, _ in rows):
            for (row, lane), scores, chooser in zip(rows, parts[: len(rows)], choosers, strict=True):
                self._accept(row, lane, scores, chooser)
        else:
            self._advance([lane.sequence for _, lane in rows], logits[: len(rows)], choosers)
        return parts[-1], seconds

    def _computed(self, rows: list[tuple[Row, Lane]], prefill: Prefill | None) -> tuple[Floats, list[Floats]]:
        """All logits, and in parts: of each row's tokens, and those after the chunk."""
        assert isinstance(self._runner, Verifier)
        runs = [Run(lane.slot.index, row.position, (row.token, *row.draft)) for row, lane in rows]
        if prefill:
            runs.append(Run(prefill.slot.index, prefill.start, prefill.tokens, wanted=1))
        ends = accumulate(run.logits for run in runs)
        logits = self._runner.verify(runs)
        return logits, np.split(logits, [*ends][:-1])

    def _advance(self, sequences: list[Sequence], logits: Floats, choosers: list[TokenChooser]) -> None:
        """Advance each sequence by the one token of its row."""
        try:
            choices = choose(logits, choosers)
        except Exception as error:  # noqa: BLE001  as above
            self._streams.fail(sequences, error)
            return
        self._streams.advance(sequences, choices)

    def _chooser(self, lane: Lane) -> TokenChooser:
        chooser = self._streams[lane.sequence.key].chooser
        assert chooser is not None  # no draft in a step with a search
        return chooser

    def _accept(self, row: Row, lane: Lane, logits: Floats, chooser: TokenChooser) -> None:
        sequence, kept = lane.sequence, 0
        for count in range(len(row.draft) + 1):
            try:
                choice = choose(logits[count : count + 1], [chooser])[0]
            except Exception as error:  # noqa: BLE001  as above
                self._streams.fail([sequence], error)
                return
            goes_on = self._is_as_proposed(row, count, choice)
            self._streams.advance([sequence], [choice], frozenset({sequence.key} if goes_on else ()))
            if not (goes_on and sequence.lanes):
                break
            with self._lock:
                self._scheduler.keep(row, count)
            kept += 1
        if row.draft:
            self._recorder.draft(len(row.draft), kept)
            assert sequence.drafter
            sequence.drafter.kept(len(row.draft), kept)

    def _is_as_proposed(self, row: Row, count: int, choice: Choice | None) -> bool:
        return choice is not None and count < len(row.draft) and row.draft[count] == choice.token

    def _prefill(self, prefill: Prefill) -> None:
        began = self._clock()
        try:
            logits = self._runner.prefill(prefill.slot.index, prefill.start, prefill.tokens)
        except Exception as error:  # noqa: BLE001  see above
            self._streams.fail([prefill.sequence], error)
            return
        self._prefilled(prefill, logits, self._seconds_since(began), together=False)

    def _prefilled(self, prefill: Prefill, logits: Floats, seconds: float, *, together: bool) -> None:
        """The chunk has run, alone or `together` with the decode rows; `logits` are those after it."""
        sequence = prefill.sequence
        chooses = prefill.last and sequence.rows == 1
        try:
            choices = self._choose(logits, [sequence]) if chooses else []
        except Exception as error:  # noqa: BLE001  see above
            self._streams.fail([sequence], error)
            return
        with self._lock:
            self._scheduler.commit_prefill(prefill, seconds, together=together)
        self._trace_chunk(sequence, last=prefill.last)
        if not prefill.last:
            return
        self._recorder.prompt(len(sequence.request.prompt), sequence.reused)
        if chooses:
            self._streams.advance([sequence], choices)
            return
        logits = logits.copy()  # the fork is a call of the runner
        if self._fork(sequence):
            self._search(sequence, logits)

    def _encode(self, encode: Encode) -> None:
        sequence, source = encode.sequence, encode.sequence.request.prompt
        self._started(sequence)
        try:
            if not encode.held:
                self._runner.encode(encode.slot.index, source)
        except Exception as error:  # noqa: BLE001  see above
            self._streams.fail([sequence], error)
            return
        with self._lock:
            self._scheduler.commit_encode(encode)
        self._trace_chunk(sequence, last=True)
        self._recorder.prompt(len(source), sequence.reused)
        self._fork(sequence)

    def _fork(self, sequence: Sequence) -> bool:
        """Copy the first row of a search to its other rows; false when that failed."""
        with self._lock:
            moves = self._scheduler.fork(sequence)
        try:
            self._move(moves)
        except Exception as error:  # noqa: BLE001  see above
            self._streams.fail([sequence], error)
            return False
        return True

    def _search(self, sequence: Sequence, logits: Floats) -> None:
        """One step of a beam search, from the logits of its rows."""
        stream = self._streams[sequence.key]
        search = stream.search
        assert search is not None
        try:
            branches = search.advance(logits)
            if not search.done:
                with self._lock:
                    moves = self._scheduler.branch(sequence, branches)
                self._move(moves)
        except Exception as error:  # noqa: BLE001  see above
            self._streams.fail([sequence], error)
            return
        if search.done:
            self._streams.complete(stream, search.best.tokens if search.best else ())

    def _choose(self, logits: Floats, sequences: list[Sequence]) -> list[Choice | None]:
        choosers = (self._streams[sequence.key].chooser for sequence in sequences)
        return choose(logits, [chooser for chooser in choosers if chooser])

    def _seconds_since(self, began_ns: int) -> float:
        return (self._clock() - began_ns) / 1e9

    def _started(self, sequence: Sequence) -> None:
        now = self._clock()
        self._recorder.started(now - sequence.request.arrival_ns)
        if trace := self._streams[sequence.key].trace:
            trace.started_ns = now

    def _trace_chunk(self, sequence: Sequence, last: bool) -> None:
        if trace := self._streams[sequence.key].trace:
            trace.ran_chunk(self._clock(), last)
