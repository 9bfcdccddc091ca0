"""What the evaluation needs of a model: log-probabilities of token ids, and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class ModelError(Exception):
    """A model that cannot be asked; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids of which those from `start` on are scored, given all before them; start is at least 1."""

    tokens: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt to complete. With a seed the answer is sampled at temperature 1 from the whole
    distribution; without one it is greedy.
    """

    tokens: tuple[int, ...]
    max_tokens: int
    seed: int | None = None


class Model(Protocol):
    """`facts` say what was measured: weights, precision, kernels, processor. `prefix` is the token before
    a text without context, as in lm-eval: the beginning token, or else the ending one. `positions` is the
    longest window.
    """

    @property
    def name(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    @property
    def prefix(self) -> int: ...
    @property
    def positions(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Without tokens that a template or a post-processor would add."""

    def chat(self, message: str) -> list[int]:
        """The tokens of a conversation in which the user said `message` and the model's turn begins."""

    def score(self, windows: Sequence[Window]) -> Iterator[list[float]]:
        """Log-probabilities in nats of each window's tokens from its start on, in the order of the
        windows.
        """

    def complete(self, prompts: Sequence[Completion]) -> Iterator[str]:
        """The text of each answer, in the order of the prompts."""
