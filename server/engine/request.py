"""What a client asks for: sampling parameters with their limits, and the request that carries them.

Rules of this file: a value of a wrong type or out of its limits raises InvalidArgument that names the field,
the value and the limit; nothing here reads a clock or a file. `Request.to_json` and `Request.from_json` are
the protocol between the tokenizer step and the engine step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from engine.errors import InvalidArgument, shown

MAX_SEED: Final = 2**64 - 1
MAX_LOGPROBS: Final = 20
MAX_BIASED_TOKENS: Final = 1024
MAX_INT32: Final = 2**31 - 1


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"


@dataclass(frozen=True, slots=True)
class Limit:
    """An interval of numbers; `open_low` leaves the lower end out."""

    kind: type[int] | type[float]
    low: float
    high: float
    open_low: bool = False

    def check(self, field: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | self.kind):
            raise InvalidArgument(field, f"{shown(value)}, must be {self._noun}")
        # Compared as it is: a float cannot tell the largest seeds apart, and no NaN compares.
        above = value > self.low if self.open_low else value >= self.low
        if not (above and value <= self.high):
            raise InvalidArgument(field, f"{shown(value)}, must be {self._noun} {self}")

    @property
    def _noun(self) -> str:
        return "a whole number" if self.kind is int else "a number"

    def __str__(self) -> str:
        if self.high == MAX_INT32:
            return f"of at least {self.low}"
        return f"in {'(' if self.open_low else '['}{self.low}, {self.high}]"


LIMITS: Final[Mapping[str, Limit]] = {
    "max_tokens": Limit(int, 1, MAX_INT32),
    "min_tokens": Limit(int, 0, MAX_INT32),
    "temperature": Limit(float, 0, 100),
    "top_p": Limit(float, 0, 1, open_low=True),
    "min_p": Limit(float, 0, 1),
    "top_k": Limit(int, 0, MAX_INT32),
    # Further down, a penalised logit would leave the range of float32.
    "repetition_penalty": Limit(float, 0.001, 10),
    "frequency_penalty": Limit(float, -2, 2),
    "presence_penalty": Limit(float, -2, 2),
    "seed": Limit(int, 0, MAX_SEED),
    "num_logprobs": Limit(int, 0, MAX_LOGPROBS),
}
_OPTIONAL: Final = ("seed", "num_logprobs")
_TOKEN: Final = Limit(int, 0, MAX_INT32)
_BIAS: Final = Limit(float, -100, 100)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen and when to stop. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop_words: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    num_logprobs: int | None = None

    def __post_init__(self) -> None:
        for field, limit in LIMITS.items():
            value = getattr(self, field)
            if value is not None or field not in _OPTIONAL:
                limit.check(field, value)
        for token, bias in self.logit_bias:
            _TOKEN.check("logit_bias", token)
            _BIAS.check("logit_bias", bias)
        for word in self.stop_words:
            _check_stop_word(word)
        if not isinstance(self.ignore_eos, bool):
            raise InvalidArgument("ignore_eos", f"{shown(self.ignore_eos)}, must be true or false")
        if self.min_tokens > self.max_tokens:
            problem = f"{self.min_tokens}, must not exceed max_tokens {self.max_tokens}"
            raise InvalidArgument("min_tokens", problem)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0 or self.top_k == 1


def _check_stop_word(word: object) -> None:
    if not isinstance(word, str) or not word or not is_unicode(word):
        raise InvalidArgument("stop_words", f"{shown(word)}, must be Unicode text of at least 1 character")


def is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no encoding can carry on."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def parse_json(field: str, text: str) -> Any:
    """Raises InvalidArgument for text that is not JSON, or nested too deeply to be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(field, f"{shown(text)}, not JSON: {error}") from None


def parse_logit_bias(text: str, vocab_size: int) -> tuple[tuple[int, float], ...]:
    """`{"token id": bias}` as JSON to pairs; raises InvalidArgument for anything else."""
    table = parse_json("logit_bias", text)
    if not isinstance(table, dict):
        raise InvalidArgument("logit_bias", f"{shown(text)}, must be a JSON object of token id to bias")
    if len(table) > MAX_BIASED_TOKENS:
        problem = f"{len(table)} entries, must be at most {MAX_BIASED_TOKENS}"
        raise InvalidArgument("logit_bias", problem)
    return tuple(sorted(_bias(token, bias, vocab_size) for token, bias in table.items()))


def _bias(token: str, bias: object, vocab_size: int) -> tuple[int, float]:
    plain = token.isascii() and token.isdigit() and len(token) <= len(str(vocab_size))
    if not (plain and str(int(token)) == token and int(token) < vocab_size):
        problem = f"token {shown(token)}, must be a token id in [0, {vocab_size - 1}]"
        raise InvalidArgument("logit_bias", problem)
    _BIAS.check("logit_bias", bias)
    assert isinstance(bias, int | float)
    return int(token), float(bias)


@dataclass(frozen=True, slots=True)
class Request:
    """One accepted prompt. Times are monotonic nanoseconds, which all processes of a machine share.

    `returns` names the optional outputs that the client wants; `ensemble` tells that a tokenizer step wrote
    it.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    stream: bool = False
    arrival_ns: int = 0
    deadline_ns: int | None = None
    timeout_us: int | None = None
    returns: tuple[str, ...] = ()
    ensemble: bool = False

    def to_json(self) -> str:
        """Everything but the prompt, which travels as the tensor `input_ids`."""
        fields = {name: getattr(self, name) for name in _ENVELOPE}
        return json.dumps(fields | {"sampling": asdict(self.sampling)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, prompt: tuple[int, ...]) -> Request:
        """Raises InvalidArgument when the text is not what `to_json` writes, or out of its limits."""
        fields = parse_json("request", text)
        try:
            sampling = fields.pop("sampling")
            sampling["stop_words"] = tuple(sampling.get("stop_words", ()))
            sampling["logit_bias"] = tuple((i, b) for i, b in sampling.get("logit_bias", ()))
            fields["returns"] = tuple(fields.get("returns", ()))
            _check_envelope(fields)
            return cls(prompt=prompt, sampling=Sampling(**sampling), **fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument("request", f"{shown(text)}, not a request: {error}") from None


_ENVELOPE: Final[Mapping[str, Any]] = {
    "stream": bool,
    "arrival_ns": int,
    "deadline_ns": int | None,
    "timeout_us": int | None,
    "returns": tuple,
    "ensemble": bool,
}


def _check_envelope(fields: Mapping[str, Any]) -> None:
    for name, kind in _ENVELOPE.items():
        if name in fields and not isinstance(fields[name], kind):
            raise InvalidArgument(name, f"{shown(fields[name])}, must be of type {kind}")
    if not all(isinstance(name, str) for name in fields["returns"]):
        raise InvalidArgument("returns", f"{shown(fields['returns'])}, must be names of outputs")


def sampling_from(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> Sampling:
    """The client's fields over the model's defaults; the model's `max_tokens` gives way to `min_tokens`."""
    merged = {**defaults, **fields}
    if "max_tokens" not in fields:
        merged["max_tokens"] = max(merged["max_tokens"], merged.get("min_tokens", 0))
    return Sampling(**merged)
