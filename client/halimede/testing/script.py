"""What a fake answers: one turn for each request, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from halimede.errors import HalimedeError
from halimede.results import Chunk

__all__ = ["Event", "Step", "Turns", "answer"]


class Event(Enum):
    """What only a fake server can do."""

    HANG = "send nothing until the client leaves"
    DROP = "break the connection"


Step = str | Chunk | HalimedeError | Event | bytes  # bytes: a body of HTTP, as it stands


def answer(*texts: str, finish_reason: str = "stop", num_input_tokens: int = 1) -> tuple[Chunk, ...]:
    """A whole answer: a chunk of one token for each text, then the last chunk."""
    chunks = (Chunk(text, None, num_input_tokens, 1) for text in texts)
    return (*chunks, Chunk("", finish_reason, num_input_tokens, 0))


class Turns:
    """The steps of each request; one more request than there are turns is a fault of the test."""

    def __init__(self, turns: Iterable[Sequence[Step]]) -> None:
        self._turns = list(turns)
        self._taken = 0

    def take(self) -> tuple[Step, ...]:
        self._taken += 1
        if self._taken > len(self._turns):
            raise AssertionError(f"request {self._taken}, but {len(self._turns)} are scripted")
        return tuple(_as_chunk(step) for step in self._turns[self._taken - 1])


def _as_chunk(step: Step) -> Step:
    return Chunk(step, num_output_tokens=1) if isinstance(step, str) else step
