"""From text or chat messages to token ids, through the model's own template.

In a chat, strings that look like special tokens inside a message are the user's text: they are encoded as
plain text, while those of the template around them are control tokens. The rendered text records for each
character who wrote it. It is encoded as a whole, with a marker in place of one character of each special
token that contains message text. The text around a marker is encoded once more without it, with special
tokens off.

Encoding takes more than a second for each MB of text, so a text that cannot fit the model is refused by its
number of bytes. The tokenizers library lets other threads run only while it encodes a batch, so a text is a
batch of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tokenizers import Encoding, Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from engine.core.errors import ArtifactError, InvalidArgument, shown
from engine.core.request import is_unicode, parse_json
from engine.prompts.sandbox import Sandbox
from engine.prompts.traced import Traced, first_of_message

ROLES: Final = ("system", "user", "assistant")
MAX_MESSAGES: Final = 1024


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


def parse_messages(text: str) -> tuple[Message, ...]:
    """A JSON list of {"role", "content"}; raises InvalidArgument that names what is wrong, and where."""
    items = parse_json("messages", text)
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_MESSAGES:
        problem = f"{shown(text)}, must be a JSON list of 1 to {MAX_MESSAGES} messages"
        raise InvalidArgument("messages", problem)
    return tuple(_message(index, item) for index, item in enumerate(items))


def _message(index: int, item: object) -> Message:
    field = f"messages[{index}]"
    if not isinstance(item, dict) or set(item) != {"role", "content"}:
        raise InvalidArgument(field, f"{shown(item)}, must be an object with exactly role and content")
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise InvalidArgument(f"{field}.role", f"{shown(role)}, must be one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise InvalidArgument(f"{field}.content", f"{shown(content)}, must be a string")
    if not is_unicode(content):
        raise InvalidArgument(f"{field}.content", "has a lone surrogate, must be Unicode text")
    return Message(role, content)


class ChatTemplate:
    """Raises jinja2.TemplateError when the source is no template."""

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        self._template = Sandbox().from_string(source)
        self._special = dict(special)

    def render(self, messages: tuple[Message, ...]) -> Traced:
        """The prompt that ends where the assistant's answer begins; raises InvalidArgument when refused."""
        # A role is one of our own words, so it counts as the template's text.
        turns = [{"role": message.role, "content": Traced(message.content)} for message in messages]
        try:
            return self._template.render(  # type: ignore[return-value]  # of the sandbox's concat
                messages=turns, tools=None, documents=None, add_generation_prompt=True, **self._special
            )
        except Exception as error:  # a template computes what it likes, so it can fail in any way
            problem = f"the model's chat template refuses them: {shown(str(error), 200)}"
            raise InvalidArgument("messages", problem) from error


class PromptEncoder:
    """`template` is None for a model that was not trained to chat; `prefix` names the task to the model.
    `positions` is the most tokens that the model takes, None for any number.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        prefix: str = "",
        positions: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._prefix = prefix
        self._positions = positions
        added = tokenizer.get_added_tokens_decoder()
        self._special = {number: token for number, token in added.items() if token.special}
        # Longest first: a special token that begins like another must not hide it.
        names = sorted((re.escape(token.content) for token in self._special.values()), key=len, reverse=True)
        self._pattern = re.compile("|".join(names)) if names else None
        # Some tokenizers add a space at the beginning of a text, but text after a control token is no
        # beginning. A token that is matched in normalised text does not split that text, so its beginning is
        # before it.
        first = json.loads(tokenizer.to_str())
        self._bound = token_bound(first)
        later = first | {"pre_tokenizer": _without_prefix(first["pre_tokenizer"])}
        within = later | {"normalizer": _without_prefix(first["normalizer"])}
        self._first = _without_special(first)
        self._later = self._first if later == first else _without_special(later)
        self._within = self._later if within == later else _without_special(within)

    def encode_text(self, text: str) -> list[int]:
        """A raw prompt after the prefix, as the tokenizers library encodes it by tokenizer.json: special
        tokens count, and those with which the model begins or ends a text are added.

        Raises InvalidArgument for a text that cannot fit the model.
        """
        text = self._prefix + text
        self._check_size("text_input", text)
        return list(_encode(self._tokenizer, text, add_special_tokens=True).ids)

    def encode_chat(self, messages: tuple[Message, ...]) -> list[int]:
        """Raises InvalidArgument when the model has no chat template, its template refuses the messages, or
        the rendered text cannot fit the model.
        """
        rendered = self.render(messages)
        self._check_size("messages", rendered)
        return list(self._encode_rendered(rendered))

    def render(self, messages: tuple[Message, ...]) -> Traced:
        """The text that `encode_chat` encodes; raises as it does."""
        if self._template is None:
            raise InvalidArgument("messages", "this model has no chat template, use text_input")
        return self._template.render(messages)

    def _check_size(self, field: str, text: str) -> None:
        if self._positions is None or self._bound is None:
            return
        size, most = self._bound.size(text), self._positions * self._bound.longest
        if size > most:
            problem = f"{size} bytes, must be at most {most}: the model takes {self._positions} tokens"
            raise InvalidArgument(field, f"{problem} of at most {self._bound.longest} bytes each")

    def _encode_rendered(self, rendered: Traced) -> Iterator[int]:
        plain = str.__str__(rendered)
        marked = _marked(plain, list(self._messages_own(rendered)))
        encoding = _encode(self._tokenizer, marked)
        position, tokenizer, between = 0, self._first, list[int]()
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            token = self._special.get(number)
            # A normaliser may turn other text into a control token.
            if token is None or token.content not in marked[start:end]:
                between.append(number)
                continue
            yield from self._plain(tokenizer, plain[position:start], marked[position:start], between)
            yield number
            position, tokenizer, between = end, self._within if token.normalized else self._later, []
        yield from self._plain(tokenizer, plain[position:], marked[position:], between)

    def _plain(self, tokenizer: Tokenizer, plain: str, marked: str, ids: list[int]) -> list[int]:
        """The ids of a text without control tokens; without a marker, they are its `ids` within the whole
        text.
        """
        if plain == marked and self._special.keys().isdisjoint(ids):
            return ids
        return list(_encode(tokenizer, plain).ids)

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


@dataclass(frozen=True, slots=True)
class TokenBound:
    """A token stands for at most `longest` bytes of a text, and the bytes in `dropped` become no token."""

    longest: int
    dropped: bytes = b""

    def size(self, text: str) -> int:
        """Bytes of the text that need a token."""
        return len(text.encode().translate(None, self.dropped))


def token_bound(content: Mapping[str, Any]) -> TokenBound | None:
    """The bound for a tokenizer.json; None where there is none.

    Some tokenizers drop part of the text, or make one token of a text of any length: normalisers that strip,
    words that are unknown as a whole, added tokens with the space around them. A byte-level vocabulary drops
    bytes it lacks.
    """
    model, added = content["model"], content["added_tokens"]
    steps = [
        *_steps(content["normalizer"], "normalizers"),
        *_steps(content["pre_tokenizer"], "pretokenizers"),
    ]
    strips = any(token["lstrip"] or token["rstrip"] for token in added)
    if model["type"] != "BPE" or content["truncation"] or strips or not all(map(_keeps_text, steps)):
        return None
    vocabulary: Collection[str] = model["vocab"].keys()
    longest_added = max((_size(token["content"]) for token in added), default=1)
    if any(step["type"] == "ByteLevel" for step in steps):
        dropped = bytes(byte for byte, letter in _byte_letters().items() if letter not in vocabulary)
        return None if model["unk_token"] else TokenBound(max(longest_added, *map(len, vocabulary)), dropped)
    if model["byte_fallback"] and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return TokenBound(max(longest_added, *map(_size, vocabulary)))
    return None


def _byte_letters() -> dict[int, str]:
    """The character for each byte in a byte-level vocabulary: its own, or one from U+0100 on."""
    letters = sorted(ByteLevel.alphabet())
    own = {ord(letter) for letter in letters if ord(letter) < 256}
    others = (byte for byte in range(256) if byte not in own)
    return {ord(letter) if ord(letter) in own else next(others): letter for letter in letters}


def _steps(step: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return list(step[inner]) if step["type"] == "Sequence" else [step]


def _keeps_text(step: Mapping[str, Any]) -> bool:
    """Whether a normaliser or pre-tokenizer (JSON) never makes a text shorter, in bytes."""
    match step:
        case {"type": "Replace", "pattern": {"String": str(found)}, "content": str(written)}:
            return _size(found) <= _size(written)
        case {"type": "Split", "behavior": str(behaviour)}:
            return behaviour != "Removed"
        case {"type": str(kind)}:
            return kind in ("ByteLevel", "Digits", "Metaspace", "Prepend")
    return False


def _size(text: str) -> int:
    return len(text.encode())


def _encode(tokenizer: Tokenizer, text: str, add_special_tokens: bool = False) -> Encoding:
    return tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)[0]


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
    """The text with a character that it does not contain at these places."""
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
