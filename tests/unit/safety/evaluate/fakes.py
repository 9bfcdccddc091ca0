"""A model that needs no weights: a token for each word, and log-probabilities that a hash gives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from safety.evaluate.model import Completion, Window

PREFIX = 0


class WordModel:
    """Each word with the space before it is a token, as in a vocabulary of byte pairs."""

    name = "words"
    facts: Mapping[str, str] = {}
    prefix = PREFIX

    def __init__(self, positions: int = 64) -> None:
        self.positions = positions
        self.words: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        pieces = re.findall(r" ?[^ ]+| +", text)
        return [self.words.setdefault(piece, len(self.words) + 1) for piece in pieces]

    def chat(self, message: str) -> list[int]:
        return self.encode(message)

    def score(self, windows: Sequence[Window]) -> Iterator[list[float]]:
        for window in windows:
            yield [logprob(window.tokens[: place + 1]) for place in range(window.start, len(window.tokens))]

    def complete(self, prompts: Sequence[Completion]) -> Iterator[str]:
        raise NotImplementedError


def logprob(tokens: Sequence[int]) -> float:
    """Of the last token after the others: from -10 to 0."""
    digest = hashlib.sha256(repr(tuple(tokens)).encode()).digest()
    return -10 * int.from_bytes(digest[:4]) / 2**32
