"""A decode step with drafts, or with a chunk of a prompt: the model runs once over each row's token, what may
follow it, and the chunk. Reading the weights once is what it saves.

Each sequence chooses its tokens one after the other, from its own logits, as it would without a draft. It
goes on for as long as what it chose is what was proposed: the logits behind that are those of the answer.
"""

from __future__ import annotations

import threading
from itertools import accumulate

import numpy as np

from engine.batch import Batch, Lane, Prefill, Row, Sequence
from engine.recorder import Recorder
from engine.runner import Floats, Run, Runner, Verifier
from engine.sampler import Choice, TokenChooser, choose
from engine.scheduler import Scheduler
from engine.stream import Clock, Streams


class Verification:
    """The lock guards the scheduler; the model runs outside it. `runner` must be a Verifier by then."""

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

    def run(self, batch: Batch, prefill: Prefill | None = None) -> tuple[Floats, float] | None:
        """If the model fails, all decoding sequences end; if a choice fails, those whose tokens it chooses:
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
        seconds = (self._clock() - began) / 1e9
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
