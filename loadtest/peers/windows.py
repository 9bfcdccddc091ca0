"""The text that is scored: the windows of Python's own documentation that the build scores an engine on."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Sequence

from tokenizers import Tokenizer

from loadtest.errors import BenchError
from loadtest.prompts import Prompt

_CHARACTERS_PER_TOKEN = 16


def windows(tokenizer: Tokenizer, count: int, tokens: int) -> list[Prompt]:
    """So many pieces of exactly so many tokens, spread evenly, each from the start of a line.

    The text of a piece encodes to its ids again: a peer that takes only text scores the same tokens.
    """
    return [_window(tokenizer, passage, tokens) for passage in _passages(count, tokens)]


def _passages(count: int, tokens: int) -> Sequence[str]:
    topics = pydoc_data.topics.topics
    text = "\n\n".join(topics[name] for name in sorted(topics))
    length = _CHARACTERS_PER_TOKEN * tokens
    most = len(text) // length
    if count > most:
        raise BenchError(f"windows {count}: the text has at most {most} of {tokens} tokens")
    starts = [text.find("\n", index * (len(text) // count)) + 1 for index in range(count)]
    return [text[start : start + length] for start in starts]


def _window(tokenizer: Tokenizer, passage: str, tokens: int) -> Prompt:
    encoded = tokenizer.encode(passage)
    ids = tuple(encoded.ids[:tokens])
    text = passage[: encoded.offsets[len(ids) - 1][1]]
    if len(ids) < tokens or tuple(tokenizer.encode(text).ids) != ids:
        raise BenchError(f"a window of {tokens} tokens is not the same tokens when its text is encoded again")
    return Prompt(text, ids)
