"""Texts to token ids, as every source needs it, and the special tokens of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from safety.evaluate.model import ModelError

# lm-eval's order: before a text without context is the beginning token or, where a model has none, its end.
_FIRST: Final = ("bos_token", "eos_token")


class Texts:
    """`special` are the special tokens by their names, such as `bos_token`."""

    def __init__(self, tokenizer_json: str, special: Mapping[str, str], template: str | None = None) -> None:
        """Raises ModelError for a tokenizer that cannot be read."""
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"tokenizer.json: not a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special = dict(special)
        self._template = template

    @property
    def prefix(self) -> int:
        for name in _FIRST:
            number = self._tokenizer.token_to_id(self._special.get(name) or "")
            if number is not None:
                return int(number)
        raise ModelError(f"tokenizer: names neither {' nor '.join(_FIRST)}; a text needs one before it")

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return text

    def chat(self, message: str) -> list[int]:
        """Raises ModelError where there is no template, or where it refuses the message."""
        if self._template is None:
            raise ModelError("the model has no chat template")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        turns = [{"role": "user", "content": message}]
        names: dict[str, Any] = {"messages": turns, "add_generation_prompt": True, **self._special}
        try:
            return self.encode(environment.from_string(self._template).render(names))
        except Exception as error:  # a template computes what it likes, so it can fail in any way
            raise ModelError(f"the chat template refuses a message: {error}") from error


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
