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
MAX_BEAMS: Final = 64
MAX_INT32: Final = 2**31 - 1


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"


class EarlyStopping(StrEnum):
    """When a beam search is over before its limit of tokens.

    FALSE: when the best running beam, at its length, no longer beats the worst finished one. TRUE: as soon as
    `num_beams` are finished. NEVER: when no running beam could beat it, at the length that is best for the
    beam.
    """

    FALSE = "false"
    TRUE = "true"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Limit:
    """An interval of numbers; `open_low` excludes the lower end."""

    kind: type[int] | type[float]
    low: float
    high: float
    open_low: bool = False

    def check(self, field: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | self.kind):
            raise InvalidArgument(field, f"{shown(value)}, must be {self._noun}")
        # Compared without a conversion: a float cannot distinguish the largest seeds, and no NaN compares.
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
    # Below this, a penalised logit would leave the range of float32.
    "repetition_penalty": Limit(float, 0.001, 10),
    "frequency_penalty": Limit(float, -2, 2),
    "presence_penalty": Limit(float, -2, 2),
    "seed": Limit(int, 0, MAX_SEED),
    "num_logprobs": Limit(int, 0, MAX_LOGPROBS),
    "num_beams": Limit(int, 1, MAX_BEAMS),
    # Beyond this, a power of the length would leave the range of float32.
    "length_penalty": Limit(float, -5, 5),
    "no_repeat_ngram_size": Limit(int, 0, MAX_INT32),
    "forced_bos_token_id": Limit(int, 0, MAX_INT32),
    "forced_eos_token_id": Limit(int, 0, MAX_INT32),
    "decoder_start_token_id": Limit(int, 0, MAX_INT32),
}
_OPTIONAL: Final = (
    "seed", "num_logprobs", "forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id",
)  # fmt: skip
_TOKEN: Final = Limit(int, 0, MAX_INT32)
_BIAS: Final = Limit(float, -100, 100)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen and when to stop. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off.

    More than one beam is a search (transformers' `generate`): the answer that scores best as a whole, which
    neither samples, nor streams, nor reports log-probabilities, nor ends at stop words.
    """

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
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = EarlyStopping.FALSE
    no_repeat_ngram_size: int = 0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field, limit in LIMITS.items():
            value = getattr(self, field)
            if value is not None or field not in _OPTIONAL:
                limit.check(field, value)
        for token, bias in self.logit_bias:
            _TOKEN.check("logit_bias", token)
            _BIAS.check("logit_bias", bias)
        for token in self.suppress_tokens:
            _TOKEN.check("suppress_tokens", token)
        for word in self.stop_words:
            _check_stop_word(word)
        if not isinstance(self.ignore_eos, bool):
            raise InvalidArgument("ignore_eos", f"{shown(self.ignore_eos)}, must be true or false")
        if self.min_tokens > self.max_tokens:
            problem = f"{self.min_tokens}, must not exceed max_tokens {self.max_tokens}"
            raise InvalidArgument("min_tokens", problem)
        if self.num_beams > 1:
            self._check_beams()

    def _check_beams(self) -> None:
        search = f"with num_beams {self.num_beams}"
        if self.temperature > 0:
            raise InvalidArgument("temperature", f"{self.temperature}, must be 0 {search}")
        if self.num_logprobs is not None:
            raise InvalidArgument("num_logprobs", f"{self.num_logprobs}, must be left out {search}")
        if self.stop_words:
            raise InvalidArgument("stop_words", f"{len(self.stop_words)} words, must be left out {search}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0 or self.top_k == 1


def _check_stop_word(word: object) -> None:
    if not isinstance(word, str) or not word or not is_unicode(word):
        raise InvalidArgument("stop_words", f"{shown(word)}, must be Unicode text of at least 1 character")


def parse_early_stopping(value: object) -> EarlyStopping:
    """Raises InvalidArgument for what is none of the three."""
    for member in EarlyStopping:
        if value == member:
            return member
    raise InvalidArgument("early_stopping", f"{shown(value)}, must be one of {', '.join(EarlyStopping)}")


def is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no encoding can represent."""
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

    The prompt of an encoder-decoder is its source. `returns` names the optional outputs that the client
    wants; `ensemble` says that a tokenizer step wrote it; `open_ended`, that the client named no
    `max_tokens`, so that the context may cut it short.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    stream: bool = False
    arrival_ns: int = 0
    deadline_ns: int | None = None
    timeout_us: int | None = None
    returns: tuple[str, ...] = ()
    ensemble: bool = False
    open_ended: bool = False

    def __post_init__(self) -> None:
        if self.stream and self.sampling.num_beams > 1:
            raise InvalidArgument("stream", f"true, must be false with num_beams {self.sampling.num_beams}")

    def to_json(self) -> str:
        """Everything but the prompt, which travels as the tensor `input_ids`."""
        fields = {name: getattr(self, name) for name in _ENVELOPE}
        return json.dumps(fields | {"sampling": asdict(self.sampling)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, prompt: tuple[int, ...]) -> Request:
        """Raises InvalidArgument when the text is not what `to_json` writes, or out of its limits."""
        return cls.from_fields(parse_json("request", text), prompt)

    @classmethod
    def from_fields(cls, written: Any, prompt: tuple[int, ...]) -> Request:
        """The same for JSON that is already parsed."""
        try:
            fields = dict(written)
            sampling = dict(fields.pop("sampling"))
            sampling["stop_words"] = tuple(sampling.get("stop_words", ()))
            sampling["logit_bias"] = tuple((i, b) for i, b in sampling.get("logit_bias", ()))
            sampling["suppress_tokens"] = tuple(sampling.get("suppress_tokens", ()))
            sampling["early_stopping"] = parse_early_stopping(sampling.get("early_stopping", "false"))
            fields["returns"] = tuple(fields.get("returns", ()))
            _check_envelope(fields)
            return cls(prompt=prompt, sampling=Sampling(**sampling), **fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument("request", f"{shown(written)}, not a request: {error}") from None


_ENVELOPE: Final[Mapping[str, Any]] = {
    "stream": bool,
    "arrival_ns": int,
    "deadline_ns": int | None,
    "timeout_us": int | None,
    "returns": tuple,
    "ensemble": bool,
    "open_ended": bool,
}


def _check_envelope(fields: Mapping[str, Any]) -> None:
    for name, kind in _ENVELOPE.items():
        if name in fields and not isinstance(fields[name], kind):
            raise InvalidArgument(name, f"{shown(fields[name])}, must be of type {kind}")
    if not all(isinstance(name, str) for name in fields["returns"]):
        raise InvalidArgument("returns", f"{shown(fields['returns'])}, must be names of outputs")


def sampling_from(fields: Mapping[str, Any], defaults: Mapping[str, Any], stream: bool = False) -> Sampling:
    """The client's fields over the model's defaults; a default that contradicts a field is dropped."""
    merged = {**defaults, **fields}
    least = merged.get("min_tokens", 0)
    if "max_tokens" not in fields:
        merged["max_tokens"] = max(merged["max_tokens"], least if "min_tokens" in fields else 0)
    if "min_tokens" not in fields:
        merged["min_tokens"] = min(least, merged["max_tokens"])
    if "num_beams" not in fields and (stream or _refuse_beams(merged)):
        merged["num_beams"] = 1
    if merged.get("num_beams", 1) > 1 and "temperature" not in fields:
        merged["temperature"] = 0.0
    merged["suppress_tokens"] = tuple(merged.get("suppress_tokens", ()))
    merged["early_stopping"] = parse_early_stopping(merged.get("early_stopping", "false"))
    return Sampling(**merged)


def _refuse_beams(fields: Mapping[str, Any]) -> bool:
    unwanted = fields.get("temperature") or fields.get("stop_words")
    return bool(unwanted) or fields.get("num_logprobs") is not None
