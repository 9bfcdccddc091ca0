from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.errors import Unavailable
from engine.core.request import FinishReason
from engine.core.scheduler import Scheduler
from engine.core.sequence import Batch, Prefill, Sequence
from engine.core.slots import Copy, SlotTable
from tests.fakes.loop import EOS, ToyRunner, sequence_of

few = st.integers(1, 3)  # few different tokens, so that prompts share prefixes
seconds = st.sampled_from([0.0, 0.001, 1.0])


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of requests, steps, cancellations and faults, over a literal KV cache."""

    @initialize(
        slots=st.integers(1, 4),
        capacity=st.integers(4, 14),
        queue=st.integers(1, 4),
        chunk=st.integers(1, 5),
        idle=st.integers(0, 8),
        stall=st.sampled_from([0, 0.5, 3]),
    )
    def begin(self, slots: int, capacity: int, queue: int, chunk: int, idle: int, stall: float) -> None:
        self.patch = patch("engine.core.scheduler.IDLE_ROW_POSITIONS", idle)
        self.patch.start()
        self.runner = ToyRunner(slots, capacity)
        self.table = SlotTable(slots, capacity, min_reuse=2)
        self.scheduler = Scheduler(self.table, frozenset({EOS}), queue, chunk, stall)
        self.capacity, self.queue, self.chunk = capacity, queue, chunk
        self.alive: list[Sequence] = []  # in the order of arrival
        self.added = 0

    @rule(data=st.data(), ignore_eos=st.booleans())
    def add(self, data: st.DataObject, ignore_eos: bool) -> None:
        prompt = data.draw(st.lists(few, min_size=1, max_size=self.capacity - 1))
        wanted = data.draw(st.integers(1, self.capacity))
        self.added += 1
        sequence = sequence_of(self.added, prompt, max_tokens=wanted, ignore_eos=ignore_eos)
        if len(self.scheduler.waiting) < self.queue + len(self.scheduler.slots.free):
            self.scheduler.add(sequence)
            self.alive.append(sequence)
        else:
            with pytest.raises(Unavailable, match=f"^UNAVAILABLE: queue: .*limit {self.queue}"):
                self.scheduler.add(sequence)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        batch = self.scheduler.schedule()
        assert (batch is None) == (not self.alive)
        if batch:
            self.check(batch)
            self.move(batch)
            self.decode(batch, data)
            self.prefill(batch.prefill, data)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), operation=st.sampled_from(["copy", "swap", "decode", "prefill"]))
    def failing_step(self, data: st.DataObject, operation: str) -> None:
        self.runner.faults = {operation: RuntimeError("out of memory")}
        self.step(data)
        self.runner.faults = {}

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.alive))
        self.alive.remove(sequence)
        self.scheduler.remove(sequence)

    def check(self, batch: Batch) -> None:
        """Rows 0..n-1, the last one running, and at most one chunk, of the oldest prompt."""
        assert [bool(row.sequence) for row in batch.decode][-1:] in ([], [True])
        for index, row in enumerate(batch.decode):
            slot = self.table.slots[index]
            assert row.position == len(slot.tokens) < self.capacity
            if row.sequence:
                assert row.sequence.slot is slot
                assert row.sequence.tokens[row.position :] == [row.token]
        assert set(batch.decoding) == {lane.sequence for lane in self.scheduler.running.values()}
        if batch.prefill:
            assert 1 <= len(batch.prefill.tokens) <= self.chunk
            assert batch.prefill.sequence is next(s for s in self.alive if s not in batch.decoding)

    def move(self, batch: Batch) -> None:
        try:
            for move in batch.moves:
                if isinstance(move, Copy):
                    self.runner.copy(move.source, move.target, move.tokens)
                else:
                    self.runner.swap(move.a, move.b, move.tokens)
        except RuntimeError:
            self.fail(batch.sequences, batch)

    def decode(self, batch: Batch, data: st.DataObject) -> None:
        rows = batch.decode
        if not rows or not set(batch.sequences) <= set(self.alive):
            return
        try:
            self.runner.decode([row.token for row in rows], [row.position for row in rows])
        except RuntimeError:
            self.fail(batch.decoding)
            return
        self.scheduler.commit_decode(rows, data.draw(seconds))
        for sequence in batch.decoding:
            self.append(sequence, data)

    def prefill(self, prefill: Prefill | None, data: st.DataObject) -> None:
        if prefill is None or prefill.sequence not in self.alive:
            return
        try:
            self.runner.prefill(prefill.slot.index, prefill.start, prefill.tokens)
        except RuntimeError:
            self.fail([prefill.sequence])
            return
        self.scheduler.commit_prefill(prefill, data.draw(seconds))
        if prefill.last:
            self.append(prefill.sequence, data)

    def append(self, sequence: Sequence, data: st.DataObject) -> None:
        token = data.draw(st.integers(0, 3))
        finish = self.scheduler.append(sequence, token)
        sampling = sequence.request.sampling
        if token == EOS and not sampling.ignore_eos:
            assert finish is FinishReason.STOP
        else:
            full = len(sequence.tokens) >= self.capacity or sequence.generated >= sampling.max_tokens
            assert finish is (FinishReason.LENGTH if full else None)
        if finish:
            self.scheduler.remove(sequence)
            self.alive.remove(sequence)

    def fail(self, sequences: list[Sequence], batch: Batch | None = None) -> None:
        slots = [sequence.slot for sequence in sequences]
        self.scheduler.fail(sequences, batch.moves if batch else ())
        assert all(slot is None or not slot.tokens for slot in slots)
        self.alive = [sequence for sequence in self.alive if sequence not in sequences]

    @invariant()
    def each_sequence_is_in_exactly_one_place(self) -> None:
        held = list(self.scheduler)
        assert len(held) == len(self.alive)
        assert set(held) == set(self.alive)
        placed = [sequence for sequence in held if sequence.slot]
        assert {s.slot.index for s in placed if s.slot} == {s.index for s in self.table.slots if s.busy}
        for index, lane in self.scheduler.running.items():
            assert lane.slot is self.table.slots[index]
        assert all(sequence.slot is None for sequence in self.scheduler.waiting)

    @invariant()
    def the_queue_is_bounded_and_in_order(self) -> None:
        waiting = list(self.scheduler.waiting)
        assert len(waiting) <= self.queue + len(self.scheduler.slots.free)
        assert waiting == [s for s in self.alive if s in waiting]

    @invariant()
    def every_slot_holds_what_it_says(self) -> None:
        for slot in self.table.slots:
            assert self.runner.rows[slot.index, : len(slot.tokens)].tolist() == slot.tokens

    @invariant()
    def a_sequence_and_its_slot_agree(self) -> None:
        for lane in self.scheduler.running.values():
            assert lane.slot.tokens == lane.tokens[:-1]
        if prefilling := self.scheduler.prefilling:
            assert prefilling.slot is not None
            tokens = prefilling.slot.tokens
            assert prefilling.reused <= len(tokens) < len(prefilling.tokens)
            assert tokens == prefilling.tokens[: len(tokens)]

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            try:
                self.come_to_rest()
            finally:
                self.patch.stop()

    def come_to_rest(self) -> None:
        """From every state, each request ends in no more steps than it has tokens and positions left."""
        for _ in range(sum(len(s.tokens) + self.capacity for s in self.alive)):
            if (batch := self.scheduler.schedule()) is None:
                break
            self.check(batch)
            self.move(batch)
            self.scheduler.commit_decode(batch.decode)
            for sequence in batch.decoding:
                self.finish_if_full(sequence)
            if batch.prefill:
                self.scheduler.commit_prefill(batch.prefill)
                if batch.prefill.last:
                    self.finish_if_full(batch.prefill.sequence)
        assert not list(self.scheduler)
        assert len(self.table.free) == len(self.table.slots)

    def finish_if_full(self, sequence: Sequence) -> None:
        if self.scheduler.append(sequence, 1):
            self.scheduler.remove(sequence)
            self.alive.remove(sequence)


SchedulerMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_scheduler_keeps_its_invariants = SchedulerMachine.TestCase
