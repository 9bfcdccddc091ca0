"""KV slots: which tokens each holds, and which one a prompt gets.

A slot is one row of the KV cache. A decode step runs rows 0..n-1 as one batch, so sequences live in the
lowest slots; slots remember their tokens after a sequence ends, and a later prompt that begins alike reuses
them.

Rules of this file: it decides and accounts, the runner moves the bytes. The `Move`s that a decision returns
must be carried out in order, before anything else is run.
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
    """The first `tokens` positions of row `source` go to row `target`."""

    source: int
    target: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Swap:
    """The first `tokens` positions of two rows change places."""

    a: int
    b: int
    tokens: int


Move = Copy | Swap


@dataclass(slots=True)
class Slot:
    """`tokens` are those whose keys and values the row holds, in order."""

    index: int
    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    last_used: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    slot: Slot
    reused: int
    moves: tuple[Move, ...]


class SlotTable:
    """All slots, in order. `capacity` is the number of positions of a row."""

    def __init__(self, count: int, capacity: int, min_reuse: int = 16) -> None:
        self.capacity = capacity
        self.slots = [Slot(index) for index in range(count)]
        self._min_reuse = min_reuse
        self._uses = 0

    @property
    def free(self) -> list[Slot]:
        return [slot for slot in self.slots if not slot.busy]

    @property
    def usage(self) -> float:
        """The share of all positions that hold tokens of running sequences."""
        used = sum(len(slot.tokens) for slot in self.slots if slot.busy)
        return used / (len(self.slots) * self.capacity)

    def place(self, prompt: Sequence[int]) -> Placement | None:
        """A slot for the prompt with the longest prefix that any slot holds, or None when all are busy.

        The lowest free slot is taken, so that running rows stay together. What it held moves to the slot that
        was unused for longest: the least recently used content is what gets lost.
        """
        free = self.free
        if not free:
            return None
        target = free[0]
        source, reused = self._longest_prefix(prompt)
        moves: list[Move] = []
        victim = self._least_recent(free, keep=source)
        kept = source is target and reused == len(target.tokens)
        if victim is not target and target.tokens and not kept:
            moves.append(Copy(target.index, victim.index, len(target.tokens)))
            victim.tokens, victim.last_used = list(target.tokens), target.last_used
        if source is not None and source is not target:
            moves.append(Copy(source.index, target.index, reused))
            if not source.busy and reused == len(source.tokens):
                source.last_used = 0  # all it holds is in the target now: first to be evicted
        target.tokens = list(prompt[:reused])
        self._take(target)
        return Placement(target, reused, tuple(moves))

    def release(self, slot: Slot) -> None:
        """The sequence is over; its tokens stay for the next prompt."""
        assert slot.busy
        slot.busy = False
        self._touch(slot)

    def forget(self, slot: Slot) -> None:
        """The row's content cannot be trusted any more."""
        slot.tokens.clear()

    def swap(self, a: Slot, b: Slot) -> Swap:
        """Exchange two slots' contents; the callers' sequences must follow."""
        move = Swap(a.index, b.index, max(len(a.tokens), len(b.tokens)))
        a.tokens, b.tokens = b.tokens, a.tokens
        a.busy, b.busy = b.busy, a.busy
        a.last_used, b.last_used = b.last_used, a.last_used
        return move

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
