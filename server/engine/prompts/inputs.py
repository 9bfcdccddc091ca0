"""The request contract of an ensemble: its inputs, checked, become a prompt and sampling parameters.

Every input is optional for Triton, because a request that lacks a required one hangs; so all are checked
here. Values arrive as plain Python: bytes, numbers, booleans.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.core.contract import INPUTS, LIMITS, TokenizerSettings
from engine.core.errors import InvalidArgument, shown
from engine.core.request import WORDS, Sampling, parse_logit_bias, sampling_from
from engine.prompts.chat import Message, parse_messages

FIELDS: Final = tuple(INPUTS)
NUMBERS: Final = tuple(LIMITS)
FLAGS: Final = tuple(name for name, one in INPUTS.items() if one.type == "BOOL")
TEXTS: Final = tuple(name for name, one in INPUTS.items() if one.type == "STRING" and not one.many)

# What Triton itself or its frontends put among the parameters of a request.
KNOWN_PARAMETERS: Final = ("id", "timeout", "priority")
RESERVED_PREFIX: Final = "triton_"


@dataclass(frozen=True, slots=True)
class Inputs:
    """One checked request: exactly one of `text` and `messages` is set. `open_ended`: see Request."""

    text: str | None
    messages: tuple[Message, ...] | None
    sampling: Sampling
    open_ended: bool
    stream: bool
    return_num_input_tokens: bool
    return_num_output_tokens: bool
    timeout_us: int | None


def parse_inputs(
    values: Mapping[str, Any],
    parameters: Mapping[str, Any],
    limits: TokenizerSettings,
    defaults: Mapping[str, Any],
    vocab_size: int,
) -> Inputs:
    """`defaults` are the model's own; raises InvalidArgument for the first wrong input."""
    timeout_us = _check_parameters(parameters)
    texts = {name: _text(name, values[name], limits) for name in TEXTS if name in values}
    text, messages = _prompt(texts)
    fields = {name: values[name] for name in NUMBERS if name in values}
    if "logit_bias" in texts:
        fields["logit_bias"] = parse_logit_bias(texts["logit_bias"], vocab_size)
    if "early_stopping" in texts:
        fields["early_stopping"] = texts["early_stopping"]
    fields |= {name: _words(name, values[name], limits) for name in WORDS if name in values}
    flags = {name: bool(values.get(name, False)) for name in FLAGS}
    fields["ignore_eos"] = flags.pop("ignore_eos")
    defaults = {"max_tokens": limits.default_max_tokens, **defaults}
    sampling = sampling_from(fields, defaults, flags["stream"])
    return Inputs(text, messages, sampling, "max_tokens" not in fields, timeout_us=timeout_us, **flags)


def read_parameters(raw: str) -> dict[str, Any]:
    """Triton hands a request's parameters over as a JSON object, or as an empty string."""
    parsed: dict[str, Any] = json.loads(raw) if raw else {}
    return parsed


def _check_parameters(parameters: Mapping[str, Any]) -> int | None:
    """Triton turns a JSON key that is no input into a parameter: refuse it, so that no typo is silent."""
    for name in parameters:
        if name in FIELDS:
            raise InvalidArgument(name, "sent as a parameter, must be sent as an input tensor")
        if name not in KNOWN_PARAMETERS and not name.startswith(RESERVED_PREFIX):
            raise InvalidArgument(shown(name), f"unknown input, must be one of {', '.join(FIELDS)}")
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise InvalidArgument(
            "timeout", f"{shown(timeout)}, must be a whole number of microseconds, 0 for none"
        )
    return timeout or None


def _prompt(texts: Mapping[str, str]) -> tuple[str | None, tuple[Message, ...] | None]:
    given = [name for name in ("text_input", "messages") if name in texts]
    if len(given) != 1:
        problem = "both are given, must be one of them" if given else "neither is given, must be one of them"
        raise InvalidArgument("text_input, messages", problem)
    if given == ["messages"]:
        return None, parse_messages(texts["messages"])
    if not texts["text_input"]:
        raise InvalidArgument("text_input", "empty, must have at least 1 character")
    return texts["text_input"], None


def _text(name: str, data: bytes, limits: TokenizerSettings) -> str:
    if len(data) > limits.max_input_bytes:
        raise InvalidArgument(name, f"{len(data)} bytes, must be at most {limits.max_input_bytes}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgument(name, f"not UTF-8 at byte {error.start}") from None


def _words(name: str, words: list[bytes], limits: TokenizerSettings) -> tuple[str, ...]:
    if len(words) > limits.max_stop_words:
        raise InvalidArgument(name, f"{len(words)} words, must be at most {limits.max_stop_words}")
    for index, word in enumerate(words):
        if not 1 <= len(word) <= limits.max_stop_bytes:
            problem = f"{len(word)} bytes, must be 1 to {limits.max_stop_bytes}"
            raise InvalidArgument(f"{name}[{index}]", problem)
    return tuple(_text(f"{name}[{index}]", word, limits) for index, word in enumerate(words))
