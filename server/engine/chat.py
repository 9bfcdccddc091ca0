"""Chat messages to a prompt, through the model's own template, in a sandbox.

A template comes with a checkpoint: it may compute text and nothing else, so it runs in jinja2's immutable
sandbox. It has what transformers gives it: raise_exception, strftime_now, tojson, the generation block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import InvalidArgument, shown
from engine.request import is_unicode, parse_json

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


class _Generation(Extension):
    """The block `generation` marks the assistant's tokens for training; here it is what it holds."""

    tags = {"generation"}  # noqa: RUF012 (declared so by jinja2)

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Raises jinja2.TemplateError when the source is no template."""

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        environment.filters["tojson"] = _to_json
        self.source = source
        self._template = environment.from_string(source)
        self._special = dict(special)

    def render(self, messages: tuple[Message, ...]) -> str:
        """The prompt that ends where the assistant's answer begins; raises InvalidArgument when refused."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(
                messages=turns, tools=None, documents=None, add_generation_prompt=True, **self._special
            )
        except Exception as error:  # a template computes what it likes, so it can fail in any way
            problem = f"the model's chat template refuses them: {shown(str(error), 200)}"
            raise InvalidArgument("messages", problem) from error


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)
