"""Text or chat messages to token ids.

In a chat, strings that look like special tokens inside a message are the user's text: they are encoded as
plain text, while those of the template around them are control tokens. The rendered text remembers who wrote
it. It is encoded as a whole, with a marker in the place of one character of each special token that a message
has part in; text that has a marker is encoded once more as it is, with special tokens off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engine.chat import ChatTemplate, Message
from engine.errors import ArtifactError, InvalidArgument
from engine.traced import Traced, first_of_message


class PromptEncoder:
    """`template` is None for a model that was not trained to chat; `prefix` names its task to the model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, prefix: str = "") -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._prefix = prefix
        added = tokenizer.get_added_tokens_decoder()
        self._special = {number: token for number, token in added.items() if token.special}
        # Longest first: a special token that begins like another must not hide it.
        names = sorted((re.escape(token.content) for token in self._special.values()), key=len, reverse=True)
        self._pattern = re.compile("|".join(names)) if names else None
        # What follows a control token is not the beginning of the text, where some add a space. One that is
        # looked for in normalised text leaves that in one piece, whose beginning is before it.
        first = json.loads(tokenizer.to_str())
        later = first | {"pre_tokenizer": _without_prefix(first["pre_tokenizer"])}
        within = later | {"normalizer": _without_prefix(first["normalizer"])}
        self._first = _without_special(first)
        self._later = self._first if later == first else _without_special(later)
        self._within = self._later if within == later else _without_special(within)

    def encode_text(self, text: str) -> list[int]:
        """A raw prompt behind the prefix, as the tokenizers library encodes it by tokenizer.json: special
        tokens count, and those that the model begins or ends a text with are added.
        """
        return list(self._tokenizer.encode(self._prefix + text).ids)

    def encode_chat(self, messages: tuple[Message, ...]) -> list[int]:
        """Raises InvalidArgument when the model has no chat template or its template refuses the messages."""
        return list(self._encode_rendered(self.render(messages)))

    def render(self, messages: tuple[Message, ...]) -> Traced:
        """The text that `encode_chat` encodes; raises as it does."""
        if self._template is None:
            raise InvalidArgument("messages", "this model has no chat template, use text_input")
        return self._template.render(messages)

    def _encode_rendered(self, rendered: Traced) -> Iterator[int]:
        plain = str.__str__(rendered)
        marked = _marked(plain, list(self._messages_own(rendered)))
        encoding = self._tokenizer.encode(marked, add_special_tokens=False)
        position, tokenizer, between = 0, self._first, list[int]()
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            token = self._special.get(number)
            # A normaliser may make a control token of what is none to the letter.
            if token is None or token.content not in marked[start:end]:
                between.append(number)
                continue
            yield from self._plain(tokenizer, plain[position:start], marked[position:start], between)
            yield number
            position, tokenizer, between = end, self._within if token.normalized else self._later, []
        yield from self._plain(tokenizer, plain[position:], marked[position:], between)

    def _plain(self, tokenizer: Tokenizer, plain: str, marked: str, ids: list[int]) -> list[int]:
        """A text without control tokens has the `ids` that it has in the whole, where nothing was marked."""
        if plain == marked and self._special.keys().isdisjoint(ids):
            return ids
        return list(tokenizer.encode(plain, add_special_tokens=False).ids)

    def _messages_own(self, rendered: Traced) -> Iterator[int]:
        """A message's first character in each special token that has one; the template may have begun it."""
        position = 0
        while self._pattern and (found := self._pattern.search(rendered, position)):
            place = first_of_message(rendered, found.start(), found.end())
            position = found.end() if place is None else place + 1
            if place is not None:
                yield place


def load_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(path.name, f"not a tokenizer: {error}") from error


def _without_special(content: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _without_prefix(steps: Any) -> Any:
    """A normaliser or pre-tokenizer (JSON) that puts no space before the text's first piece."""

    def changed(step: dict[str, Any]) -> dict[str, Any]:
        if step.get("type") == "Prepend":
            return step | {"prepend": ""}
        return step | {"prepend_scheme": "never"} if step.get("prepend_scheme") == "first" else step

    return json.loads(json.dumps(steps), object_hook=changed)


def _marked(text: str, places: list[int]) -> str:
    """The text with another character at these places, which it does not have."""
    if not places:
        return text
    used = set(text)
    private = chain(range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))
    marker = next((c for c in map(chr, private) if c not in used), None)
    if marker is None:
        raise InvalidArgument("messages", "they use every private-use character of Unicode, must leave one")
    characters = list(text)
    for place in places:
        characters[place] = marker
    return "".join(characters)
