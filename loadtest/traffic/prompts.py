"""The text of prompts: exactly the planned number of tokens, and a shared beginning only where the profile
says so.

The words are those of Python's own documentation that are one token each, so a prompt of n tokens is n words,
and costs the load generator no tokenizing. Without the model's tokenizer words are counted and their tokens
estimated.
"""

from __future__ import annotations

import pydoc_data.topics
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Protocol

from tokenizers import Tokenizer

from loadtest.errors import TrafficError
from loadtest.traffic.profile import Bad
from loadtest.traffic.schedule import Planned

# Of this text under the tokenizers of SmolLM2 (1.13) and its like.
TOKENS_PER_WORD = 1.13
# Two prompts begin alike for longer than this many tokens once in some billions.
SERIAL_TOKENS = 4
_MIN_VOCABULARY = 64
_PLAIN = re.compile(r"[A-Za-z]+[.,;:]?")


class Encoder(Protocol):
    """A tokenizer, without the special tokens that it may put around a text."""

    def encode(self, text: str) -> Sequence[int]: ...


class PromptWriter:
    """Writes the prompts of a schedule.

    Two runs with the same `salt` have the same prompts; give each run against the same server another one,
    or the second finds the first one's prompts in the server's prefix cache. `tokens_per_word` is for a
    writer without the model's tokenizer (no `encoder`).
    """

    def __init__(
        self, encoder: Encoder | None = None, salt: int = 0, tokens_per_word: float = TOKENS_PER_WORD
    ) -> None:
        self._words = plain_words() if encoder is None else _single(plain_words(), encoder)
        self._vocabulary = tuple(dict.fromkeys(self._words))
        self._tokens_per_word = tokens_per_word if encoder is None else 1.0
        self._salt = salt
        self._prefixes: dict[str, tuple[str, ...]] = {}

    def write(self, planned: Planned) -> str:
        """The prompt of `tokens_in` tokens, of which the first `prefix_tokens` are its group's."""
        if planned.kind.bad is Bad.EMPTY:
            return ""
        shared: tuple[str, ...] = ()
        if planned.prefix_group is not None:
            name = f"{planned.kind.name}/{planned.prefix_group}"
            shared = self._prefix(name, self._count(planned.prefix_tokens))
        own = self._count(planned.tokens_in) - len(shared)
        return " ".join((*shared, *self._text(f"{planned.seed}", max(own, 0))))

    def probe(self, words: int) -> str:
        """That many words, to learn from a server how many tokens they are."""
        return " ".join(self._text("probe", words))

    def _count(self, tokens: int) -> int:
        return max(1, round(tokens / self._tokens_per_word))

    def _prefix(self, name: str, count: int) -> tuple[str, ...]:
        """Of one text a group: a shorter prefix is the beginning of a longer one."""
        known = self._prefixes.get(name, ())
        if len(known) < count:
            self._prefixes[name] = known = self._text(f"prefix/{name}", count)
        return known[:count]

    def _text(self, name: str, count: int) -> tuple[str, ...]:
        random = Random(f"{self._salt}/{name}")
        serial = random.choices(self._vocabulary, k=SERIAL_TOKENS)
        begin = random.randrange(len(self._words))
        body = self._words[begin : begin + count]
        while len(body) < count:
            body += self._words[: count - len(body)]
        return (*serial, *body)[:count]


def tokens_per_word(short: tuple[str, int], long: tuple[str, int]) -> float:
    """Of two texts and what a server counted for them; what it adds to each (a template) falls out."""
    (text, tokens), (longer, more) = short, long
    words = len(longer.split()) - len(text.split())
    if words <= 0 or more <= tokens:
        raise TrafficError(f"{more - tokens} tokens for {words} words more: must both be above 0")
    return (more - tokens) / words


class TokenizerFile:
    """An Encoder for prompts. TrafficError when the file holds no tokenizer."""

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no other class
            raise TrafficError(f"{path}: is no tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


@cache
def plain_words() -> tuple[str, ...]:
    """English of Python's own documentation, in its order."""
    topics = pydoc_data.topics.topics
    text = " ".join(topics[name] for name in sorted(topics))
    return tuple(word for word in text.split() if _PLAIN.fullmatch(word))


def _single(words: tuple[str, ...], encoder: Encoder) -> tuple[str, ...]:
    """The words that are one token at a text's beginning and within; TrafficError when they do not add up."""
    good = {
        word
        for word in set(words)
        if len(encoder.encode(word)) == 1 and len(encoder.encode(f"{word} {word}")) == 2
    }
    found = tuple(word for word in words if word in good)
    if len(good) < _MIN_VOCABULARY:
        raise TrafficError(
            f"the tokenizer: {len(good)} plain words of one token, must have {_MIN_VOCABULARY}; "
            "go without it, and the tokens are estimated by words"
        )
    counted = len(encoder.encode(" ".join(found)))
    if counted != len(found):
        raise TrafficError(
            f"the tokenizer: makes {counted:,} tokens of {len(found):,} words of one token; "
            "go without it, and the tokens are estimated by words"
        )
    return found
