"""A request in the engine, its rows, and what one step runs.

A sequence runs in one row of the KV cache, a beam search in several.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.drafts import Drafter
from engine.request import Request
from engine.slots import Move, Slot
from engine.stops import TextStream


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
