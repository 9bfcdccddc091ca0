"""Text or chat messages to token ids.

In a chat, strings that look like special tokens inside a message are the user's text: they are encoded as
plain text, while those of the template around them are control tokens. The rendered text remembers who wrote
it: it is cut at the special tokens all of whose characters are the template's, and what lies between them is
encoded with special tokens off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engine.chat import ChatTemplate, Message
from engine.errors import ArtifactError, InvalidArgument
from engine.traced import Traced, written


class PromptEncoder:
    """`template` is None for a model that was not trained to chat; `prefix` names its task to the model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, prefix: str = "") -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._prefix = prefix
        added = tokenizer.get_added_tokens_decoder()
        self._special = {t.content: (number, t) for number, t in added.items() if t.special}
        # Longest first: a special token that begins like another must not hide it.
        names = sorted(map(re.escape, self._special), key=len, reverse=True)
        self._pattern = re.compile("|".join(names)) if names else None
        self._first = Tokenizer.from_str(tokenizer.to_str())
        # What follows a control token is not the beginning of the text, where some add a space.
        self._later = Tokenizer.from_str(_without_first_prefix(tokenizer.to_str()))
        self._first.encode_special_tokens = self._later.encode_special_tokens = True

    def encode_text(self, text: str) -> list[int]:
        """A raw prompt behind the prefix, as transformers encodes it: special tokens count, and those that
        the model begins or ends a text with are added.
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
        text, position, strip = str.__str__(rendered), 0, False
        for found in self._control_tokens(rendered):
            token_id, token = self._special[found[0]]
            before = text[position : found.start()]
            before = before.lstrip() if strip else before
            yield from self._encode_plain(before.rstrip() if token.lstrip else before, position)
            yield token_id
            position, strip = found.end(), token.rstrip
        rest = text[position:]
        yield from self._encode_plain(rest.lstrip() if strip else rest, position)

    def _control_tokens(self, rendered: Traced) -> Iterator[re.Match[str]]:
        if self._pattern:
            for start, end in written(rendered):
                yield from self._pattern.finditer(rendered, start, end)

    def _encode_plain(self, text: str, position: int) -> list[int]:
        tokenizer = self._later if position else self._first
        return list(tokenizer.encode(text, add_special_tokens=False).ids) if text else []


def load_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(path.name, f"not a tokenizer: {error}") from error


def _without_first_prefix(tokenizer: str) -> str:
    """The tokenizer (JSON) without a space that its pre-tokenizer puts before the text's first piece."""

    def changed(step: dict[str, Any]) -> dict[str, Any]:
        return step | {"prepend_scheme": "never"} if step.get("prepend_scheme") == "first" else step

    return json.dumps(json.loads(tokenizer, object_hook=changed))
