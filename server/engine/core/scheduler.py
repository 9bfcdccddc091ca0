"""What runs next: a bounded queue, prompts prefilled in chunks or sources encoded, and one decode batch over
the slots.

Rules of this file: state in, decision out. `schedule()` returns a Batch; the loop runs it, reports with
`commit_decode()`, `commit_prefill()`, `commit_encode()` or `fail()`, and hands each sampled token to
`append()`. No clock, no thread, no array.

Life of a sequence: waiting → prefilling (one at a time, first come first served; each step runs one chunk, so
a long prompt does not stall the streams; a source is encoded whole, in one step) → running (a row of every
decode step) → removed. A prompt is placed only when its prefill starts: by then the prompts before it are in
their slots, and a common prefix can be copied from them.

A beam search is a sequence of several rows. It waits until that many slots are free, and no request overtakes
it. After the prefill all its rows have the same content (`fork`), and after each step they continue as the
search decides (`branch`); `complete()` hands over the answer that won.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from engine.core.errors import InvalidArgument, Unavailable
from engine.core.pacing import Limits, Pace, chunk_tokens
from engine.core.request import FinishReason, Request
from engine.core.sequence import Batch, Drafter, Encode, Lane, Prefill, Row, Sequence, room_for_drafts
from engine.core.slots import SHORTEST_PREFILL, Copy, Move, SlotTable

# An idle row of a decode step costs about as much time as copying this many positions of a slot
# (SmolLM2-135M on two Zen 4 cores: 1.5 ms against 12 us a position).
IDLE_ROW_POSITIONS: Final = 128


class Scheduler:
    def __init__(
        self,
        slots: SlotTable,
        eos: frozenset[int],
        max_queue: int,
        prefill_chunk: int,
        stall: float = 0,
        speculative_tokens: int = 0,
    ) -> None:
        """`stall`: how many decode steps' time a chunk takes while streams run; 0 for chunks of fixed size.
        `speculative_tokens`: the most that are proposed for a row; the runner must then be able to verify.
        """
        self.slots = slots
        self.eos = eos
        self.waiting: deque[Sequence] = deque()
        self.prefilling: Sequence | None = None
        self.running: dict[int, Lane] = {}
        self._searches: list[Sequence] = []
        self._max_queue = max_queue
        self._limits = Limits(prefill_chunk, stall)
        self._pace = Pace()
        self._speculative_tokens = speculative_tokens
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
        yield from dict.fromkeys(lane.sequence for lane in self.running.values())

    def check(self, request: Request) -> None:
        """Raises InvalidArgument for what the slots cannot hold."""
        capacity, prompt, sampling = self.slots.capacity, len(request.prompt), request.sampling
        if not prompt:
            raise InvalidArgument("prompt", "0 tokens, must have at least 1")
        if self.slots.source_capacity:
            if prompt > self.slots.source_capacity:
                problem = f"{prompt} tokens, must be at most {self.slots.source_capacity} (max_source)"
                raise InvalidArgument("prompt", problem)
        elif prompt >= capacity:
            problem = (
                f"{prompt} tokens, must be at most {capacity - 1} (context of {capacity}, one for the answer)"
            )
            raise InvalidArgument("prompt", problem)
        if sampling.max_tokens > capacity and not request.open_ended:
            raise InvalidArgument(
                "max_tokens", f"{sampling.max_tokens}, must be at most {capacity} (the context)"
            )
        if sampling.num_beams > len(self.slots.slots):
            problem = f"{sampling.num_beams}, must be at most {len(self.slots.slots)} (the slots)"
            raise InvalidArgument("num_beams", problem)

    def add(self, sequence: Sequence) -> None:
        """Raises what `check` raises, and Unavailable when the queue is full."""
        self.check(sequence.request)
        queued = self._queued()
        if queued >= self._max_queue:
            problem = f"{queued} requests waiting, limit {self._max_queue}; retry later"
            raise Unavailable("queue", problem)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """The sequence is over, wherever it was: its slots are free, their tokens stay for a later prompt."""
        if not sequence.lanes:
            self.waiting.remove(sequence)
            return
        if self.prefilling is sequence:
            self.prefilling = None
        else:
            for lane in sequence.lanes:
                del self.running[lane.slot.index]
            if sequence.rows > 1:
                self._searches.remove(sequence)
        for lane in sequence.lanes:
            self.slots.release(lane.slot)
        sequence.lanes = []

    def schedule(self) -> Batch | None:
        """The next step, or None when there is nothing to do."""
        moves = list(self._admit())
        moves += self._close_gap()
        decode = tuple(self._rows())
        prefill = encode = None
        if self.prefilling and self.slots.source_capacity:
            encode = self._encode(self.prefilling)
        elif self.prefilling:
            prefill = self._next_chunk(self.prefilling)
        if not (decode or self.prefilling):
            return None
        return Batch(tuple(moves), decode, tuple(self._searches), prefill, encode, not self._pace.apart)

    def commit_decode(self, rows: Iterable[Row], seconds: float | None = 0) -> None:
        """The decode step has run, in so many seconds if alone: each row's token is in its slot."""
        if seconds is not None:
            self._pace = self._pace.decoded(seconds)
        for row in rows:
            if row.lane:
                row.lane.slot.tokens.append(row.token)

    def keep(self, row: Row, count: int) -> None:
        """Accept the next token of the row's draft: the sequence has chosen it, after `count` others."""
        assert row.lane
        row.lane.slot.tokens.append(row.draft[count])

    def commit_prefill(self, prefill: Prefill, seconds: float = 0, *, together: bool = False) -> None:
        """The chunk has run, in so many seconds, alone or `together` with the decode rows; after the last one
        the sequence is a row of decode steps.
        """
        timed = self._pace.together if together else self._pace.prefilled
        self._pace = timed(prefill.start, len(prefill.tokens), seconds)
        prefill.slot.tokens.extend(prefill.tokens)
        if prefill.last:
            self._start(prefill.sequence)

    def commit_encode(self, encode: Encode) -> None:
        """The source is encoded in its slot: the decoder starts with the next step."""
        encode.slot.source = encode.sequence.request.prompt
        self._start(encode.sequence)

    def fork(self, sequence: Sequence) -> list[Move]:
        """All rows of a search continue from the first one."""
        first, *others = [lane.slot for lane in sequence.lanes]
        return [self.slots.follow(first, slot, cross=True) for slot in others]

    def branch(self, sequence: Sequence, branches: tuple[tuple[int, int], ...]) -> list[Move]:
        """Row i of a search continues row `parent` with `token`: branches[i]. A parent keeps its row."""
        lanes, moves = sequence.lanes, []
        for lane, (parent, _) in zip(lanes, branches, strict=True):
            if lanes[parent] is not lane:
                assert branches[parent][0] == parent
                moves.append(self.slots.follow(lanes[parent].slot, lane.slot))
                lane.tokens = list(lanes[parent].tokens)
        for lane, (_, token) in zip(lanes, branches, strict=True):
            lane.tokens.append(token)
        return [move for move in moves if move.start < move.tokens]

    def fail(self, sequences: list[Sequence], moves: Iterable[Move] = ()) -> None:
        """A part of the step has failed: its sequences end, and what its slots contain is not reused."""
        for sequence in sequences:
            slots = [lane.slot for lane in sequence.lanes]
            self.remove(sequence)
            for slot in slots:
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

    def complete(self, sequence: Sequence, answer: Iterable[int]) -> FinishReason:
        """The answer that a search has found, which may be shorter than its rows are by now."""
        finish = FinishReason.LENGTH
        for token in answer:
            finish = self.append(sequence, token) or finish
        return finish

    def _queued(self) -> int:
        """Waiting sequences for which slots are free do not count: a burst fills the slots and then the
        queue.
        """
        free, placed = len(self.slots.free), 0
        for sequence in self.waiting:
            free -= sequence.rows
            if free < 0:
                break
            placed += 1
        return len(self.waiting) - placed

    def _admit(self) -> tuple[Move, ...]:
        if self.prefilling or not self.waiting:
            return ()
        sequence = self.waiting[0]
        if sequence.rows > len(self.slots.free):
            return ()
        self.prefilling = self.waiting.popleft()
        place = self.slots.place_source if self.slots.source_capacity else self.slots.place
        first = place(sequence.request.prompt)
        assert first is not None
        others = [self.slots.reserve() for _ in range(sequence.rows - 1)]
        sequence.reused = first.reused
        sequence.lanes = [Lane(sequence, first.slot, sequence.tokens)]
        if others:
            sequence.lanes = [Lane(sequence, p.slot, list(sequence.tokens)) for p in (first, *others)]
        return tuple(move for placement in (first, *others) for move in placement.moves)

    def _start(self, sequence: Sequence) -> None:
        self.running |= {lane.slot.index: lane for lane in sequence.lanes}
        if sequence.rows > 1:
            self._searches.append(sequence)
        self.prefilling = None

    def _encode(self, sequence: Sequence) -> Encode:
        return Encode(sequence, sequence.lanes[0].slot, held=sequence.reused > 0)

    def _next_chunk(self, sequence: Sequence) -> Prefill:
        slot = sequence.lanes[0].slot
        start, prompt = len(slot.tokens), sequence.request.prompt
        first, beside = start == sequence.reused, bool(self.running)
        size = chunk_tokens(self._pace, self._limits, start, len(prompt) - start, first=first, beside=beside)
        end = start + size
        left = len(prompt) - end
        if 0 < left < SHORTEST_PREFILL < size:
            end -= SHORTEST_PREFILL - left
        return Prefill(sequence, slot, start, prompt[start:end], last=end == len(prompt))

    def _rows(self) -> Iterator[Row]:
        most = 0 if self._searches else min(self._speculative_tokens, room_for_drafts(len(self.running)))
        for index in range(max(self.running, default=-1) + 1):
            slot, lane = self.slots.slots[index], self.running.get(index)
            position = len(slot.tokens)
            # An idle row writes one position behind its tokens; a sequence ends before it fills the last.
            assert position < self.slots.capacity
            draft = self._draft(lane, position, most) if lane and most else ()
            yield Row(lane.tokens[position] if lane else 0, position, lane, draft)

    def _draft(self, lane: Lane, position: int, most: int) -> tuple[int, ...]:
        """A draft of what may follow the token at `position`. The answer's last token is never computed."""
        sequence = lane.sequence
        if sequence.drafter is None:
            sequence.drafter = Drafter(sequence.tokens, self._speculative_tokens)
        left = sequence.request.sampling.max_tokens - sequence.generated - 1
        return sequence.drafter.propose(min(most, left, self.slots.capacity - position - 2))

    def _close_gap(self) -> list[Move]:
        """Move the last running row into the first gap, once idle rows have cost as much as the move does."""
        gaps = [i for i in range(max(self.running, default=0)) if not self.slots.slots[i].busy]
        if not gaps or self.waiting:
            self._idle_rows = 0
            return []
        self._idle_rows += len(gaps)
        last = self.running[max(self.running)]
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
