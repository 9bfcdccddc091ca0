"""KV slots: which tokens each holds, and which one a prompt gets.

A slot is one row of the KV cache. A decode step runs rows 0..n-1 as one batch, so sequences live in the
lowest slots; slots keep their tokens after a sequence ends, and a later prompt with the same beginning reuses
them. With an encoder they keep their sources instead: all of the decoder's state depends on the whole source.

Rules of this file: it decides and keeps track, the runner moves the bytes. The `Move`s that a decision
returns must be carried out in order, before anything else is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

# ONNX Runtime's attention rounds a single row differently from the same row among others, and int8 weights
# turn that into 0.3 of a logit. So the end of a prompt, whose logits choose the first token, is computed as
# two tokens or more, however much of it was cached: else a cached prompt would be answered differently.
SHORTEST_PREFILL: Final = 2


@dataclass(frozen=True, slots=True)
class Copy:
    """The positions `start` to `tokens` (excluded) of row `source` go to row `target`; `cross`: so does what
    the row holds of an encoder's source.
    """

    source: int
    target: int
    tokens: int
    start: int = 0
    cross: bool = True


@dataclass(frozen=True, slots=True)
class Swap:
    """The first `tokens` positions of two rows are exchanged."""

    a: int
    b: int
    tokens: int


Move = Copy | Swap


@dataclass(slots=True)
class Slot:
    """`tokens` are those whose keys and values the row holds, in order; `source` is in its cross cache."""

    index: int
    tokens: list[int] = field(default_factory=list)
    source: tuple[int, ...] = ()
    busy: bool = False
    last_used: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    slot: Slot
    reused: int
    moves: tuple[Move, ...]


class SlotTable:
    """All slots, in order. A row has `capacity` positions, and with an encoder those of a source."""

    def __init__(self, count: int, capacity: int, min_reuse: int = 16, source_capacity: int = 0) -> None:
        self.capacity = capacity
        self.source_capacity = source_capacity
        self.slots = [Slot(index) for index in range(count)]
        self._min_reuse = min_reuse
        self._uses = 0

    @property
    def free(self) -> list[Slot]:
        return [slot for slot in self.slots if not slot.busy]

    @property
    def usage(self) -> float:
        """The share of all positions that hold tokens of running sequences."""
        used = sum(len(slot.tokens) + len(slot.source) for slot in self.slots if slot.busy)
        return used / (len(self.slots) * (self.capacity + self.source_capacity))

    def place(self, prompt: Sequence[int]) -> Placement | None:
        """A slot for the prompt with the longest prefix that any slot holds, or None when all are busy.

        The lowest free slot is taken, so that running rows stay together. Its content moves to the slot that
        was unused for longest: the least recently used content is lost.
        """
        free = self.free
        if not free:
            return None
        target = free[0]
        source, reused = self._longest_prefix(prompt)
        kept = source is target and reused == len(target.tokens)
        moves = [] if kept else self._vacate(target, free, keep=source)
        if source is not None and source is not target:
            moves.append(Copy(source.index, target.index, reused))
            if not source.busy and reused == len(source.tokens):
                source.last_used = 0  # all it holds is in the target now: first to be evicted
        target.tokens = list(prompt[:reused])
        self._take(target)
        return Placement(target, reused, tuple(moves))

    def place_source(self, source: tuple[int, ...]) -> Placement | None:
        """A slot for what an encoder reads, or None when all are busy; reused is all of it or nothing."""
        free = self.free
        if not free:
            return None
        target = free[0]
        holder = next((slot for slot in (target, *self.slots) if slot.source == source), None)
        moves = (Copy(holder.index, target.index, 0),) if holder and holder is not target else ()
        target.tokens, target.source = [], source if holder else ()
        self._take(target)
        return Placement(target, len(source) if holder else 0, moves)

    def reserve(self) -> Placement:
        """One more slot, empty, for a request that runs in several; there must be one."""
        free = self.free
        target = free[0]
        moves = () if self.source_capacity else tuple(self._vacate(target, free, keep=None))
        target.tokens, target.source = [], ()
        self._take(target)
        return Placement(target, 0, moves)

    def follow(self, source: Slot, target: Slot, cross: bool = False) -> Copy:
        """Target continues as source does: it gets the tokens after their common prefix."""
        start = common_prefix(source.tokens, target.tokens)
        target.tokens[start:] = source.tokens[start:]
        if cross:
            target.source = source.source
        return Copy(source.index, target.index, len(source.tokens), start, cross)

    def release(self, slot: Slot) -> None:
        """The sequence is over; its tokens stay for the next prompt."""
        assert slot.busy
        slot.busy = False
        self._touch(slot)

    def forget(self, slot: Slot) -> None:
        """The row's content cannot be trusted any more."""
        slot.tokens.clear()
        slot.source = ()

    def swap(self, a: Slot, b: Slot) -> Swap:
        """Exchange two slots' contents; the callers' sequences must follow."""
        move = Swap(a.index, b.index, max(len(a.tokens), len(b.tokens)))
        a.tokens, b.tokens = b.tokens, a.tokens
        a.source, b.source = b.source, a.source
        a.busy, b.busy = b.busy, a.busy
        a.last_used, b.last_used = b.last_used, a.last_used
        return move

    def _vacate(self, target: Slot, free: list[Slot], keep: Slot | None) -> list[Move]:
        """Move the content of a free slot to the one that was unused for longest."""
        victim = self._least_recent(free, keep)
        if victim is target or not target.tokens:
            return []
        victim.tokens, victim.last_used = list(target.tokens), target.last_used
        return [Copy(target.index, victim.index, len(target.tokens))]

    def _longest_prefix(self, prompt: Sequence[int]) -> tuple[Slot | None, int]:
        wanted = list(prompt[:-SHORTEST_PREFILL])
        best, length = None, self._min_reuse - 1
        for slot in self.slots:
            shared = common_prefix(slot.tokens, wanted)
            if shared > length:
                best, length = slot, shared
        return (best, length) if best else (None, 0)

    def _least_recent(self, free: list[Slot], keep: Slot | None) -> Slot:
        candidates = [slot for slot in free if slot is not keep] or free
        return min(candidates, key=lambda slot: (bool(slot.tokens), slot.last_used, slot.index))

    def _take(self, slot: Slot) -> None:
        slot.busy = True
        self._touch(slot)

    def _touch(self, slot: Slot) -> None:
        self._uses += 1
        slot.last_used = self._uses


def common_prefix(a: list[int], b: list[int]) -> int:
    """The length of the longest common prefix, by bisection: comparing slices runs at C speed."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
