from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.slots import Copy, Move, Placement, Slot, SlotTable, Swap, common_prefix

GARBAGE = -1
few = st.integers(0, 2)  # few different tokens, so that prompts share prefixes


def carry_out(rows: list[list[int]], move: Move) -> None:
    """What a runner does, to the letter."""
    if isinstance(move, Copy):
        rows[move.target][: move.tokens] = rows[move.source][: move.tokens]
    else:
        a, b, n = move.a, move.b, move.tokens
        rows[a][:n], rows[b][:n] = rows[b][:n], rows[a][:n]


class SlotMachine(RuleBasedStateMachine):
    """The KV cache is what the moves make of it; the table's account must be true at any time."""

    @initialize(count=st.integers(1, 4), min_reuse=st.integers(1, 3))
    def begin(self, count: int, min_reuse: int) -> None:
        self.capacity = 12
        self.table = SlotTable(count, self.capacity, min_reuse)
        self.min_reuse = min_reuse
        self.rows = [[GARBAGE] * self.capacity for _ in range(count)]

    def busy(self, data: st.DataObject) -> Slot:
        return data.draw(st.sampled_from([slot for slot in self.table.slots if slot.busy]))

    @rule(prompt=st.lists(few, min_size=1, max_size=11))
    def place(self, prompt: list[int]) -> None:
        held = [list(slot.tokens) for slot in self.table.slots]
        lowest = min((slot.index for slot in self.table.free), default=None)
        before = {id(slot) for slot in self.table.slots if slot.busy}
        placement = self.table.place(prompt)
        if lowest is None:
            assert placement is None
            return
        assert placement is not None
        self.check_placement(placement, prompt, held)
        assert placement.slot.index == lowest
        assert {id(slot) for slot in self.table.slots if slot.busy} == before | {id(placement.slot)}
        for move in placement.moves:
            carry_out(self.rows, move)

    def check_placement(self, placement: Placement, prompt: list[int], held: list[list[int]]) -> None:
        """The longest prefix that any slot held is reused, but never the prompt's last two tokens."""
        longest = max(common_prefix(tokens, prompt[:-2]) for tokens in held)
        assert placement.reused == (longest if longest >= self.min_reuse else 0)
        assert placement.slot.tokens == prompt[: placement.reused]
        for move in placement.moves:
            assert isinstance(move, Copy)
            assert move.target == placement.slot.index or not self.table.slots[move.target].busy

    @precondition(lambda self: any(slot.busy for slot in self.table.slots))
    @rule(data=st.data(), token=few)
    def append(self, data: st.DataObject, token: int) -> None:
        slot = self.busy(data)
        if len(slot.tokens) < self.capacity:
            self.rows[slot.index][len(slot.tokens)] = token
            slot.tokens.append(token)

    @precondition(lambda self: any(slot.busy for slot in self.table.slots))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = self.busy(data)
        tokens = list(slot.tokens)
        self.table.release(slot)
        assert not slot.busy
        assert slot.tokens == tokens

    @precondition(lambda self: any(slot.busy for slot in self.table.slots) and self.table.free)
    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        a, b = data.draw(st.sampled_from(self.table.free)), self.busy(data)
        carry_out(self.rows, self.table.swap(a, b))
        assert a.busy
        assert not b.busy

    @rule(data=st.data())
    def spoil_and_forget(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(self.table.slots))
        self.rows[slot.index] = [GARBAGE] * self.capacity
        self.table.forget(slot)

    @rule(data=st.data())
    def idle_row_writes_behind_the_tokens(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(self.table.slots))
        if len(slot.tokens) < self.capacity:
            self.rows[slot.index][len(slot.tokens)] = GARBAGE

    @invariant()
    def every_slot_holds_what_it_says(self) -> None:
        for slot in self.table.slots:
            assert self.rows[slot.index][: len(slot.tokens)] == slot.tokens

    @invariant()
    def usage_counts_busy_slots_alone(self) -> None:
        used = sum(len(slot.tokens) for slot in self.table.slots if slot.busy)
        assert self.table.usage == used / (len(self.table.slots) * self.capacity)


SlotMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_slots_hold_what_they_say = SlotMachine.TestCase


def filled(table: SlotTable, *contents: str) -> list[Slot]:
    """Run one prompt after another in a slot of its own, then free them all, the first one first."""
    slots = []
    for text in contents:
        placement = table.place(text.encode())
        assert placement is not None
        placement.slot.tokens = list(text.encode())
        slots.append(placement.slot)
    for slot in slots:
        table.release(slot)
    return slots


def place(table: SlotTable, text: str) -> Placement:
    placement = table.place(text.encode())
    assert placement is not None
    return placement


def test_the_least_recently_used_content_is_lost() -> None:
    table = SlotTable(3, 10, min_reuse=2)
    filled(table, "aaaa", "bbbb", "cccc")
    place(table, "dddd")
    assert [bytes(slot.tokens) for slot in table.slots] == [b"", b"bbbb", b"cccc"]


def test_recent_content_of_the_lowest_slot_replaces_the_oldest() -> None:
    table = SlotTable(3, 10, min_reuse=2)
    first = filled(table, "aaaa", "bbbb", "cccc")[0]
    again = place(table, "aaaaX")
    assert again.slot is first
    again.slot.tokens = list(b"aaaaX")
    table.release(first)
    placement = place(table, "dddd")
    assert placement.moves == (Copy(0, 1, 5),)
    assert [bytes(slot.tokens) for slot in table.slots] == [b"", b"aaaaX", b"cccc"]


def test_an_empty_slot_takes_the_content_before_any_other_is_lost() -> None:
    table = SlotTable(3, 10, min_reuse=2)
    filled(table, "aaaa", "bbbb")
    assert place(table, "dddd").moves == (Copy(0, 2, 4),)


def test_a_prefix_of_a_running_slot_is_copied() -> None:
    table = SlotTable(2, 10, min_reuse=2)
    running = place(table, "abcdef")
    running.slot.tokens = list(b"abcdef")
    placement = place(table, "abcxyz")
    assert placement == Placement(table.slots[1], 3, (Copy(0, 1, 3),))
    assert bytes(running.slot.tokens) == b"abcdef"


def test_a_prefix_in_the_lowest_slot_itself_needs_no_move() -> None:
    table = SlotTable(2, 10, min_reuse=2)
    filled(table, "abcd")
    assert place(table, "abcdef") == Placement(table.slots[0], 4, ())


def test_a_content_used_in_part_is_kept_elsewhere() -> None:
    table = SlotTable(2, 10, min_reuse=2)
    filled(table, "abcd")
    assert place(table, "abxx").moves == (Copy(0, 1, 4),)
    assert [bytes(slot.tokens) for slot in table.slots] == [b"ab", b"abcd"]


def test_content_that_moved_whole_is_the_first_to_be_lost() -> None:
    table = SlotTable(3, 10, min_reuse=2)
    filled(table, "aaaa", "bbbb", "cccc")
    placement = place(table, "ccccXY")
    assert placement.reused == 4
    placement.slot.tokens = list(b"ccccXY")
    table.release(placement.slot)
    assert place(table, "dddd").moves == (Copy(0, 2, 6),)  # slot 2 held "cccc", of which there are two


def test_the_source_of_a_prefix_is_not_overwritten_before_it_is_copied() -> None:
    table = SlotTable(2, 10, min_reuse=2)
    filled(table, "aaaa", "bbbb")
    table.slots[0].last_used = 99  # slot 1 is the least recently used one, and the source
    placement = place(table, "bbbbXY")
    assert placement.moves == (Copy(1, 0, 4),)
    assert bytes(table.slots[1].tokens) == b"bbbb"


def test_content_that_moved_keeps_its_age() -> None:
    table = SlotTable(3, 10, min_reuse=2)
    filled(table, "aaaa", "bbbb", "cccc")
    for text in ("aaaaXY", "dddd"):  # what slot 0 held last goes to slot 1
        slot = place(table, text).slot
        slot.tokens = list(text.encode())
        table.release(slot)
    assert [bytes(slot.tokens) for slot in table.slots] == [b"dddd", b"aaaaXY", b"cccc"]
    assert place(table, "eeee").moves == (Copy(0, 2, 4),)


def test_two_tokens_of_a_prompt_are_always_computed() -> None:
    table = SlotTable(1, 10, min_reuse=1)
    filled(table, "abcd")
    assert place(table, "abcd").reused == 2


def test_a_short_prefix_is_not_worth_a_copy() -> None:
    table = SlotTable(1, 64)
    filled(table, "a" * 30)
    assert place(table, "a" * 15 + "b").reused == 0


def test_without_a_free_slot_nothing_is_placed() -> None:
    table = SlotTable(1, 10)
    place(table, "ab")
    assert table.place([1]) is None


def test_a_free_slot_cannot_be_released() -> None:
    table = SlotTable(1, 10)
    with pytest.raises(AssertionError):
        table.release(table.slots[0])


def test_a_swap_moves_the_longer_of_the_two() -> None:
    table = SlotTable(2, 10)
    placement = place(table, "ab")
    placement.slot.tokens = list(b"ab")
    age = placement.slot.last_used
    assert table.swap(table.slots[1], table.slots[0]) == Swap(1, 0, 2)
    assert [slot.busy for slot in table.slots] == [False, True]
    assert [slot.last_used for slot in table.slots] == [0, age]


@given(st.lists(few), st.lists(few), st.lists(few))
def test_common_prefix_equals_the_naive_one(shared: list[int], a: list[int], b: list[int]) -> None:
    a, b = shared + a, shared + b
    naive = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix(a, b) == naive
