"""English texts of exactly so many tokens, cut from Python's own documentation: prompts of which no two begin
alike, so that no prefix cache helps, and windows that are scored.
"""

from __future__ import annotations

import pydoc_data.topics
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tokenizers import Tokenizer

from loadtest.errors import BenchError

# The engine reuses nothing below 16 tokens; the serial number differs within the first 7.
_SERIAL = "{:06d}: "
_CHARACTERS_PER_TOKEN = 8
_STRIDE = 977
_CHARACTERS_PER_WINDOW_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    ids: tuple[int, ...]


class Prompts:
    """The same prompts, in the same order, in every run: Python's own documentation, a number before each."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._corpus = _text()
        self._serials = count()
        self._places = count()

    @classmethod
    def load(cls, engine: Path) -> Prompts:
        return cls(Tokenizer.from_file(str(engine / "tokenizer.json")))

    def take(self, number: int, tokens: int) -> list[Prompt]:
        """`number` fresh prompts of exactly so many tokens."""
        return [self._prompt(tokens) for _ in range(number)]

    def continued(self, prompt: Prompt, tokens: int) -> Prompt:
        """The prompt with about so many fresh tokens after it."""
        return self._encoded(f"{prompt.text}\n\n{self._prompt(tokens).text}")

    def _prompt(self, tokens: int) -> Prompt:
        """A piece of the corpus; cut after a token, it may come to another number of tokens."""
        start, length = _SERIAL.format(next(self._serials)), tokens * _CHARACTERS_PER_TOKEN
        places = max(len(self._corpus) - length, 0)
        for _ in range(100 if places else 0):
            begin = next(self._places) * _STRIDE % places
            text = start + self._corpus[begin : begin + length]
            offsets = self._tokenizer.encode(text).offsets
            if len(offsets) >= tokens:
                cut = self._encoded(text[: offsets[tokens - 1][1]])
                if len(cut.ids) == tokens:
                    return cut
        raise BenchError(f"no prompt of {tokens} tokens in a text of {len(self._corpus):,} characters")

    def _encoded(self, text: str) -> Prompt:
        return Prompt(text, tuple(self._tokenizer.encode(text).ids))


def windows(tokenizer: Tokenizer, number: int, tokens: int) -> list[Prompt]:
    """Pieces of the text on which the build scores an engine, spread evenly, each from the start of a line.

    The text of a piece encodes to its ids again: a peer that takes only text scores the same tokens.
    """
    text, length = _text(), _CHARACTERS_PER_WINDOW_TOKEN * tokens
    most = len(text) // length
    if number > most:
        raise BenchError(f"windows {number}: the text has at most {most} of {tokens} tokens")
    found = []
    for index in range(number):
        start = text.find("\n", index * (len(text) // number)) + 1
        passage = text[start : start + length]
        encoded = tokenizer.encode(passage)
        ids = tuple(encoded.ids[:tokens])
        cut = passage[: encoded.offsets[len(ids) - 1][1]]
        if len(ids) < tokens or tuple(tokenizer.encode(cut).ids) != ids:
            raise BenchError(f"a window of {tokens} tokens is other tokens when its text is encoded again")
        found.append(Prompt(cut, ids))
    return found


def _text() -> str:
    topics = pydoc_data.topics.topics
    return "\n\n".join(topics[name] for name in sorted(topics))
