from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import InvalidArgument, Unavailable
from engine.core.request import FinishReason
from engine.core.scheduler import IDLE_ROW_POSITIONS, Scheduler
from engine.core.sequence import Batch, Sequence
from engine.core.slots import Copy, SlotTable, Swap
from tests.fakes.loop import EOS, ToyRunner, sequence_of


class Harness:
    """A scheduler with a runner that never fails; every answer token is 1."""

    def __init__(
        self,
        slots: int = 3,
        capacity: int = 32,
        queue: int = 8,
        chunk: int = 4,
        min_reuse: int = 4,
        stall: float = 0,
    ) -> None:
        self.runner = ToyRunner(slots, capacity)
        self.table = SlotTable(slots, capacity, min_reuse)
        self.scheduler = Scheduler(self.table, frozenset({EOS}), queue, chunk, stall)
        self.keys = 0

    def add(self, prompt: list[int], **sampling: Any) -> Sequence:
        self.keys += 1
        sequence = sequence_of(self.keys, prompt, **sampling)
        self.scheduler.add(sequence)
        return sequence

    def step(self, decode_s: float = 0, token_s: float = 0) -> Batch | None:
        """`token_s`: what a token of a chunk takes, wherever it is."""
        batch = self.scheduler.schedule()
        if batch is None:
            return None
        for move in batch.moves:
            if isinstance(move, Copy):
                self.runner.copy(move.source, move.target, move.tokens)
            else:
                self.runner.swap(move.a, move.b, move.tokens)
        if batch.decode:
            self.runner.decode([r.token for r in batch.decode], [r.position for r in batch.decode])
        self.scheduler.commit_decode(batch.decode, decode_s)
        if prefill := batch.prefill:
            self.runner.prefill(prefill.slot.index, prefill.start, prefill.tokens)
            self.scheduler.commit_prefill(prefill, token_s * len(prefill.tokens))
        last = [batch.prefill.sequence] if batch.prefill and batch.prefill.last else []
        for sequence in [*batch.decoding, *last]:
            if self.scheduler.append(sequence, 1):
                self.scheduler.remove(sequence)
        return batch


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="prompt: 0 tokens, must have at least 1"):
        Harness().add([])


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: prompt: 32 tokens, must be at most 31 "):
        Harness(capacity=32).add([1] * 32)


def test_the_longest_prompt_gets_one_token() -> None:
    harness = Harness(capacity=8, chunk=16)
    sequence = harness.add([1] * 7)
    harness.step()
    assert sequence.generated == 1
    assert not list(harness.scheduler)


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: max_tokens: 33, must be at most 32"):
        Harness(capacity=32).add([1], max_tokens=33)


def test_a_full_queue_refuses_at_once_and_keeps_what_it_has() -> None:
    harness = Harness(slots=1, queue=1)
    harness.add([1], max_tokens=1)  # for the slot
    harness.add([2])
    with pytest.raises(Unavailable, match=r"^UNAVAILABLE: queue: 1 requests waiting, limit 1; retry later$"):
        harness.add([3])
    assert len(harness.scheduler.waiting) == 2
    harness.step()
    harness.add([3])


def test_a_long_prompt_is_prefilled_in_chunks_while_streams_go_on() -> None:
    harness = Harness(chunk=4)
    stream = harness.add([1, 2], max_tokens=20)
    harness.step()
    long = harness.add([3] * 18)
    lengths, generated = [], stream.generated
    for step in range(5):
        batch = harness.step()
        assert batch
        assert batch.prefill
        assert batch.decoding == [stream]
        assert stream.generated == generated + step + 1
        lengths.append(len(batch.prefill.tokens))
    assert lengths == [4, 4, 4, 4, 2]
    assert long.generated == 1


@pytest.mark.parametrize(("prompt", "chunks"), [(8, [4, 4]), (9, [4, 3, 2]), (10, [4, 4, 2]), (1, [1])])
def test_no_chunk_of_one_token_ends_a_prompt(prompt: int, chunks: list[int]) -> None:
    """Whatever was cached, the logits of a prompt are those of several rows (SHORTEST_PREFILL)."""
    harness = Harness(chunk=4)
    harness.add(list(range(1, prompt + 1)))
    lengths = []
    while (batch := harness.step()) and batch.prefill:
        lengths.append(len(batch.prefill.tokens))
    assert lengths == chunks


def test_prompts_are_prefilled_first_come_first_served() -> None:
    harness = Harness(chunk=4)
    first, second = harness.add([1] * 8), harness.add([2])
    order = []
    while batch := harness.step():
        if batch.prefill:
            order.append(batch.prefill.sequence)
    assert order == [first, first, second]


def test_a_prompt_behind_another_reuses_what_that_one_computed() -> None:
    """The second is placed only when its prefill starts: by then the first one's prefix is there."""
    harness = Harness(chunk=4)
    harness.add([1] * 11 + [2])
    second = harness.add([1] * 11 + [3])
    while second.slot is None:
        harness.step()
    assert second.reused == 10


def test_rows_between_running_ones_are_idle_and_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.core.scheduler.IDLE_ROW_POSITIONS", 0)  # no gap is ever closed
    harness = Harness()
    short = harness.add([1], max_tokens=2)
    long = harness.add([2], max_tokens=8)
    harness.step()
    harness.step()
    assert short.slot is None
    batch = harness.step()
    assert batch
    assert [row.sequence for row in batch.decode] == [None, long]
    assert harness.table.slots[0].tokens == [1, 1]
    assert harness.runner.rows[0, :2].tolist() == [1, 1]


def gap_below(harness: Harness, tokens: int) -> Sequence:
    """A long sequence in slot 1, with a gap in slot 0 beneath it."""
    first, last = harness.add([1], max_tokens=1), harness.add([2] * tokens, max_tokens=30)
    harness.table.slots[0].busy = True  # slot 1 for the last, whatever becomes of the first
    while not last.slot or harness.scheduler.prefilling:
        harness.step()
    assert first.slot is None
    harness.table.slots[0].busy = False
    return last


def test_a_gap_is_closed_once_idle_rows_have_cost_what_a_move_costs() -> None:
    harness = Harness(slots=3, capacity=4 * IDLE_ROW_POSITIONS, chunk=512)
    last = gap_below(harness, 2 * IDLE_ROW_POSITIONS + 1)
    assert last.slot is harness.table.slots[1]
    moves = []
    for _ in range(4):
        batch = harness.step()
        assert batch
        moves.append(list(batch.moves))
    assert [len(step) for step in moves] == [0, 0, 1, 0]
    assert isinstance(moves[2][0], Swap)
    assert last.slot is harness.table.slots[0]
    assert harness.runner.rows[0, : len(last.slot.tokens)].tolist() == last.slot.tokens


def test_no_gap_is_closed_while_a_prompt_waits_for_it() -> None:
    harness = Harness(slots=3, capacity=64, chunk=64)
    gap_below(harness, 10)
    newcomer = harness.add([3] * 5, max_tokens=30)
    batch = harness.step()
    assert batch
    assert not any(isinstance(move, Swap) for move in batch.moves)
    assert newcomer.slot is harness.table.slots[0]


def test_no_gap_is_closed_while_another_prompt_waits_behind_a_long_one() -> None:
    harness = Harness(slots=4, capacity=64, chunk=4)
    ends = [harness.add([n], max_tokens=n) for n in (1, 5, 60)]
    for slot in harness.table.slots[:2]:
        slot.busy = True  # slots 2 and 3 for the first and the last
    while ends[2].slot is None or harness.scheduler.prefilling:
        harness.step()
    for slot in harness.table.slots[:2]:
        slot.busy = False
    harness.add([3] * 20)
    harness.add([4])
    for _ in range(5):
        batch = harness.step()
        assert batch
        assert not any(isinstance(move, Swap) for move in batch.moves)


def test_the_slot_of_the_sequence_that_ended_last_is_the_most_recent() -> None:
    harness = Harness()
    long, short = harness.add([1], max_tokens=9), harness.add([2], max_tokens=2)
    while list(harness.scheduler):
        harness.step()
    assert (long.slot, short.slot) == (None, None)
    ages = {slot.tokens[0]: slot.last_used for slot in harness.table.slots if slot.tokens}
    assert ages[1] > ages[2]


def test_a_failed_decode_forgets_its_slots_alone() -> None:
    harness = Harness(slots=3, chunk=8)
    failing, prefilling = harness.add([1] * 5), harness.add([2] * 20)
    harness.step()
    harness.step()
    harness.scheduler.fail([failing])
    assert harness.table.slots[0].tokens == []
    assert prefilling.slot is not None
    assert prefilling.slot.tokens == [2] * 8
    assert list(harness.scheduler) == [prefilling]


def test_a_failed_move_forgets_what_it_may_have_spoilt() -> None:
    harness = Harness(slots=2, min_reuse=2)
    harness.add([1] * 6, max_tokens=1)
    while harness.step():
        pass
    harness.add([1] * 3 + [2])
    batch = harness.scheduler.schedule()
    assert batch
    assert batch.moves == (Copy(0, 1, 6),)
    harness.scheduler.fail(batch.sequences, batch.moves)
    assert [slot.tokens for slot in harness.table.slots] == [[], []]


@pytest.mark.parametrize(
    ("minimum", "finish"), [(0, FinishReason.STOP_SEQUENCE), (1, FinishReason.STOP_SEQUENCE), (2, None)]
)
def test_a_stop_sequence_ends_an_answer_from_min_tokens_on(minimum: int, finish: FinishReason | None) -> None:
    harness = Harness()
    sequence = sequence_of(1, [1], stop_words=("b",), min_tokens=minimum)
    assert harness.scheduler.append(sequence, 2) is finish


def test_eos_wins_over_length_and_can_be_ignored() -> None:
    scheduler = Harness().scheduler
    assert scheduler.append(sequence_of(1, [1], max_tokens=1), EOS) is FinishReason.STOP
    ignoring = sequence_of(1, [1], max_tokens=1, ignore_eos=True)
    assert scheduler.append(ignoring, EOS) is FinishReason.LENGTH


def test_reprs_tell_where_things_are() -> None:
    harness = Harness()
    sequence = harness.add([1, 2])
    assert repr(sequence) == "<Sequence 1 [2 + 0 tokens | waiting]>"
    assert repr(harness.scheduler) == "<Scheduler [1 waiting | 0 prefilling | 0 running]>"
    harness.step()
    assert repr(sequence) == "<Sequence 1 [2 + 1 tokens | slot 0]>"


def test_a_chunk_is_limited_in_time_while_streams_run_and_whole_otherwise() -> None:
    harness = Harness(slots=2, capacity=1024, chunk=128, stall=2.5)
    harness.add([1] * 20, max_tokens=200, ignore_eos=True)
    harness.step(token_s=0.001)
    for _ in range(3):
        harness.step(decode_s=0.02)
    long = harness.add([2] * 600)
    lengths = []
    while long not in (lane.sequence for lane in harness.scheduler.running.values()):
        batch = harness.step(decode_s=0.02, token_s=0.001)
        assert batch
        assert batch.decode
        assert batch.prefill
        lengths.append(len(batch.prefill.tokens))
    # 2.5 decodes of 20 ms are 50 ms; a token takes 1 ms, and is thought dearer behind others.
    assert all(16 <= length <= 56 for length in lengths)
    alone = Harness(slots=2, capacity=1024, chunk=128, stall=2.5)
    alone.add([2] * 600)
    batch = alone.step(token_s=0.001)
    assert batch
    assert batch.prefill
    assert len(batch.prefill.tokens) == 128
