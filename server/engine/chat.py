"""Chat messages to a prompt, through the model's own template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from engine.errors import InvalidArgument, shown
from engine.request import is_unicode, parse_json
from engine.sandbox import Sandbox
from engine.traced import Traced

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
