"""A request in the engine, its rows, the tokens that are proposed for it, and what one step runs.

A sequence runs in one row of the KV cache, a beam search in several.

Prompt lookup proposes tokens: a summary, an edit or an answer about code repeats its prompt. What followed
the last two or three tokens when they occurred before is proposed, and computed together with the token that
is due; what the model would have chosen anyway is kept (Saxena, "Prompt Lookup Decoding", 2023; Leviathan et
al., 2023, for the idea). Answers do not change: a proposed token stays only where the sequence's own choice,
drawn with its own random numbers, is that token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from engine.core.request import Request
from engine.core.slots import Move, Slot
from engine.core.stops import TextStream

# The same three tokens are followed by the same token more often than the same two; one token hardly ever is.
_LENGTHS: Final = (3, 2)
# Tokens that one step computes, the due ones included: more of them take longer than they may save.
TOGETHER: Final = 16
# After a draft of which nothing was accepted, so many steps run without one.
_REST: Final = 8


class Drafter:
    """Drafts for one sequence. `tokens` is its own list, which grows; `most` is the longest draft."""

    def __init__(self, tokens: list[int], most: int) -> None:
        self._tokens = tokens
        self._most = most
        self._length = most
        self._rest = 0
        self._indexed = 0
        # Where the tokens after an n-gram's last occurrence begin.
        self._after: dict[tuple[int, ...], int] = {}

    def propose(self, room: int) -> tuple[int, ...]:
        """At most `room` tokens after the last one; none if its n-gram has not occurred before."""
        self._index()
        if self._rest:
            self._rest -= 1
            return ()
        for length in _LENGTHS:
            begin = self._after.get(tuple(self._tokens[-length:]))
            if begin is not None:
                period = len(self._tokens) - begin
                return tuple(self._tokens[begin + i % period] for i in range(min(room, self._length)))
        return ()

    def kept(self, proposed: int, kept: int) -> None:
        """Called with the number of proposed tokens that became the answer's: it sets the next draft's
        length.
        """
        if kept == proposed:
            self._length = min(self._most, 2 * max(self._length, proposed))
        else:
            self._length = max(1, kept + 1)
        if not kept:
            self._rest = _REST

    def _index(self) -> None:
        """Every n-gram but the one at the end, which would find itself."""
        for end in range(self._indexed + 1, len(self._tokens)):
            for length in _LENGTHS:
                if end >= length:
                    self._after[tuple(self._tokens[end - length : end])] = end
        self._indexed = max(self._indexed, len(self._tokens) - 1)


def room_for_drafts(running: int) -> int:
    """How many tokens each of so many rows may add to a step."""
    return max(TOGETHER - running, 0) // running if running else 0


@dataclass(slots=True, eq=False)
class Sequence:
    """A request in the engine: `tokens` are the given tokens, with which the decoder begins, and the
    answer's.

    The given tokens are the prompt, or with an encoder the decoder's start token. A waiting sequence has no
    lanes.
    """

    key: int
    request: Request
    text: TextStream
    tokens: list[int]
    lanes: list[Lane] = field(default_factory=list)
    reused: int = 0
    given: int = field(init=False)
    drafter: Drafter | None = None

    def __post_init__(self) -> None:
        self.given = len(self.tokens)

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.given

    @property
    def slot(self) -> Slot | None:
        """The slot that a prefill fills; the slot of the only row, unless the sequence is a search."""
        return self.lanes[0].slot if self.lanes else None

    @property
    def rows(self) -> int:
        """The slots that it needs."""
        return self.request.sampling.num_beams

    def __repr__(self) -> str:
        where = "waiting" if self.slot is None else f"slot {self.slot.index}"
        return f"<Sequence {self.key} [{self.given} + {self.generated} tokens | {where}]>"


@dataclass(slots=True, eq=False)
class Lane:
    """A row of a sequence. `tokens` are the sequence's own, or in a search those of one beam."""

    sequence: Sequence
    slot: Slot
    tokens: list[int]


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
class Encode:
    """A source that goes to a slot; `held`: the moves have already copied its encoded form there."""

    sequence: Sequence
    slot: Slot
    held: bool


@dataclass(frozen=True, slots=True)
class Row:
    """Row `i` of a decode batch is slot `i`: `token` goes to `position`. An idle row has no lane.

    The tokens of `draft` follow it: they are proposals for the next tokens, and stay in the slot if accepted.
    """

    token: int
    position: int
    lane: Lane | None
    draft: tuple[int, ...] = ()

    @property
    def sequence(self) -> Sequence | None:
        return self.lane.sequence if self.lane else None


@dataclass(frozen=True, slots=True)
class Batch:
    """One engine step, in this order: the moves, the decode rows, the prefill chunk or the source to encode.

    Decode comes first: an idle row writes where the chunk of the same slot is about to write. Only a runner
    that leaves idle rows out may take both in one call, and does so if they go `together`. `searches` are the
    beam searches with rows in the step.
    """

    moves: tuple[Move, ...]
    decode: tuple[Row, ...]
    searches: tuple[Sequence, ...] = ()
    prefill: Prefill | None = None
    encode: Encode | None = None
    together: bool = False

    @property
    def sequences(self) -> list[Sequence]:
        begun = self.prefill or self.encode
        return self.decoding + ([begun.sequence] if begun else [])

    @property
    def decoding(self) -> list[Sequence]:
        return list(dict.fromkeys(row.lane.sequence for row in self.decode if row.lane))
