"""The script of a fake: it answers each request with the next turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from halimede.errors import HalimedeError
from halimede.results import Chunk

__all__ = ["Event", "Step", "Turns", "answer"]


class Event(Enum):
    """A step that needs a fake server."""

    HANG = "send nothing until the client leaves"
    DROP = "break the connection"


Step = str | Chunk | HalimedeError | Event | bytes  # bytes: a piece of an HTTP body, sent unchanged


def answer(*texts: str, finish_reason: str = "stop", num_input_tokens: int = 1) -> tuple[Chunk, ...]:
    """A whole answer: a chunk of one token for each text, then the last chunk."""
    chunks = (Chunk(text, None, num_input_tokens, 1) for text in texts)
    return (*chunks, Chunk("", finish_reason, num_input_tokens, 0))


class Turns:
    """The steps of each request. A request without a turn raises AssertionError."""

    def __init__(self, turns: Iterable[Sequence[Step]]) -> None:
        self._turns = list(turns)
        self._taken = 0

    def take(self) -> tuple[Step, ...]:
        self._taken += 1
        if self._taken > len(self._turns):
            raise AssertionError(f"request {self._taken}, but {len(self._turns)} are scripted")
        steps = self._turns[self._taken - 1]
        return tuple(Chunk(s, num_output_tokens=1) if isinstance(s, str) else s for s in steps)
