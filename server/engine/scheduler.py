"""What runs next: a bounded queue, prompts prefilled in chunks, and one decode batch over the slots.

Rules of this file: state in, decision out. `schedule()` returns a Batch; the loop runs it, reports with
`commit_decode()`, `commit_prefill()` or `fail()`, and hands each sampled token to `append()`. No clock, no
thread, no array.

Life of a sequence: waiting → prefilling (one at a time, first come first served; each step runs one chunk, so
a long prompt does not stall the streams) → running (a row of every decode step) → removed. A prompt is placed
only when its prefill starts: by then the prompts before it are in their slots and can lend a common prefix.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from engine.errors import InvalidArgument, Unavailable
from engine.request import FinishReason, Request
from engine.slots import SHORTEST_PREFILL, Copy, Move, Slot, SlotTable
from engine.stops import TextStream

# An idle row of a decode step costs about as much time as copying this many positions of a slot
# (SmolLM2-135M on two Zen 4 cores: 1.5 ms against 12 us a position).
IDLE_ROW_POSITIONS: Final = 128


@dataclass(slots=True, eq=False)
class Sequence:
    """A request in the engine: `tokens` are the prompt's and the answer's."""

    key: int
    request: Request
    text: TextStream
    tokens: list[int]
    slot: Slot | None = None
    reused: int = 0

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    def __repr__(self) -> str:
        where = "waiting" if self.slot is None else f"slot {self.slot.index}"
        return f"<Sequence {self.key} [{len(self.request.prompt)} + {self.generated} tokens | {where}]>"


@dataclass(frozen=True, slots=True)
class Prefill:
    """A chunk of a prompt: `tokens` go to positions `start`… of the sequence's slot; `last` gives the first
    logits.
    """

    sequence: Sequence
    slot: Slot
    start: int
    tokens: tuple[int, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class Row:
    """Row `i` of a decode batch is slot `i`: `token` goes to `position`. An idle row has no sequence."""

    token: int
    position: int
    sequence: Sequence | None


@dataclass(frozen=True, slots=True)
class Batch:
    """One engine step, in this order: the moves, the decode rows, the prefill chunk.

    Decode comes first: an idle row writes where the chunk of the same slot is about to write.
    """

    moves: tuple[Move, ...]
    decode: tuple[Row, ...]
    prefill: Prefill | None

    @property
    def sequences(self) -> list[Sequence]:
        return self.decoding + ([self.prefill.sequence] if self.prefill else [])

    @property
    def decoding(self) -> list[Sequence]:
        return [row.sequence for row in self.decode if row.sequence]


class Scheduler:
    def __init__(self, slots: SlotTable, eos: frozenset[int], max_queue: int, prefill_chunk: int) -> None:
        self.slots = slots
        self.eos = eos
        self.waiting: deque[Sequence] = deque()
        self.prefilling: Sequence | None = None
        self.running: dict[int, Sequence] = {}
        self._max_queue = max_queue
        self._chunk = prefill_chunk
        self._idle_rows = 0

    def __repr__(self) -> str:
        places = {
            "waiting": len(self.waiting),
            "prefilling": int(self.prefilling is not None),
            "running": len(self.running),
        }
        return f"<Scheduler [{' | '.join(f'{count} {place}' for place, count in places.items())}]>"

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.waiting
        if self.prefilling:
            yield self.prefilling
        yield from self.running.values()

    def add(self, sequence: Sequence) -> None:
        """Raises InvalidArgument for what the context cannot hold, Unavailable when the queue is full."""
        capacity, prompt = self.slots.capacity, len(sequence.request.prompt)
        if not prompt:
            raise InvalidArgument("prompt", "0 tokens, must have at least 1")
        if prompt >= capacity:
            problem = (
                f"{prompt} tokens, must be at most {capacity - 1} (context of {capacity}, one for the answer)"
            )
            raise InvalidArgument("prompt", problem)
        if sequence.request.sampling.max_tokens > capacity:
            asked = sequence.request.sampling.max_tokens
            raise InvalidArgument("max_tokens", f"{asked}, must be at most {capacity} (the context)")
        # Those that a free slot awaits do not count: a burst fills the slots and then the queue.
        queued = len(self.waiting) - len(self.slots.free)
        if queued >= self._max_queue:
            problem = f"{queued} requests waiting, limit {self._max_queue}; retry later"
            raise Unavailable("queue", problem)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """The sequence is over, wherever it was: its slot is free, its tokens stay for a later prompt."""
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        if self.prefilling is sequence:
            self.prefilling = None
        else:
            del self.running[sequence.slot.index]
        self.slots.release(sequence.slot)
        sequence.slot = None

    def schedule(self) -> Batch | None:
        """The next step, or None when there is nothing to do."""
        moves = list(self._admit())
        moves += self._close_gap()
        decode = tuple(self._rows())
        prefill = self._next_chunk()
        return Batch(tuple(moves), decode, prefill) if prefill or decode else None

    def commit_decode(self, rows: tuple[Row, ...]) -> None:
        """The decode step has run: each row's token is in its slot."""
        for row in rows:
            if row.sequence:
                assert row.sequence.slot
                row.sequence.slot.tokens.append(row.token)

    def commit_prefill(self, prefill: Prefill) -> None:
        """The chunk has run; after the last one the sequence is a row of the decode steps."""
        prefill.slot.tokens.extend(prefill.tokens)
        if prefill.last:
            self.running[prefill.slot.index] = prefill.sequence
            self.prefilling = None

    def fail(self, sequences: list[Sequence], moves: tuple[Move, ...] = ()) -> None:
        """A part of the step has not run: its sequences end, and what it touched is not trusted any more."""
        for sequence in sequences:
            slot = sequence.slot
            self.remove(sequence)
            if slot:
                self.slots.forget(slot)
        for move in moves:
            self._forget_moved(move)

    def append(self, sequence: Sequence, token: int) -> FinishReason | None:
        """A sampled token; the reason when it is the last one. The caller then removes the sequence."""
        sampling = sequence.request.sampling
        sequence.tokens.append(token)
        if token in self.eos and not sampling.ignore_eos:
            return FinishReason.STOP
        if sequence.text.push(token, match=sequence.generated >= sampling.min_tokens):
            return FinishReason.STOP_SEQUENCE
        full = len(sequence.tokens) >= self.slots.capacity
        return FinishReason.LENGTH if full or sequence.generated >= sampling.max_tokens else None

    def _admit(self) -> tuple[Move, ...]:
        if self.prefilling or not self.waiting:
            return ()
        placement = self.slots.place(self.waiting[0].request.prompt)
        if placement is None:
            return ()
        self.prefilling = self.waiting.popleft()
        self.prefilling.slot = placement.slot
        self.prefilling.reused = placement.reused
        return placement.moves

    def _next_chunk(self) -> Prefill | None:
        sequence = self.prefilling
        if sequence is None:
            return None
        slot = sequence.slot
        assert slot is not None
        start, prompt = len(slot.tokens), sequence.request.prompt
        end = min(start + self._chunk, len(prompt))
        left = len(prompt) - end
        if 0 < left < SHORTEST_PREFILL < self._chunk:
            end -= SHORTEST_PREFILL - left
        return Prefill(sequence, slot, start, prompt[start:end], last=end == len(prompt))

    def _rows(self) -> Iterator[Row]:
        for index in range(max(self.running, default=-1) + 1):
            slot, sequence = self.slots.slots[index], self.running.get(index)
            position = len(slot.tokens)
            # An idle row writes one position behind its tokens; a sequence ends before it fills the last.
            assert position < self.slots.capacity
            yield Row(sequence.tokens[position] if sequence else 0, position, sequence)

    def _close_gap(self) -> list[Move]:
        """Move the last running row into the first gap, once idle rows have cost as much as the move does."""
        gaps = [i for i in range(max(self.running, default=0)) if not self.slots.slots[i].busy]
        if not gaps or self.waiting:
            self._idle_rows = 0
            return []
        self._idle_rows += len(gaps)
        last = self.running[max(self.running)]
        assert last.slot is not None
        gap = self.slots.slots[gaps[0]]
        if self._idle_rows * IDLE_ROW_POSITIONS < max(len(gap.tokens), len(last.slot.tokens)):
            return []
        self._idle_rows = 0
        del self.running[last.slot.index]
        move = self.slots.swap(gap, last.slot)
        last.slot = gap
        self.running[gap.index] = last
        return [move]

    def _forget_moved(self, move: Move) -> None:
        touched = (move.target,) if isinstance(move, Copy) else (move.a, move.b)
        for index in touched:
            if not self.slots.slots[index].busy:
                self.slots.forget(self.slots.slots[index])
