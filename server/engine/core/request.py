"""What a client asks for: sampling parameters with their limits, and the request that carries them.

Rules of this file: a value of a wrong type or out of its limits raises InvalidArgument that names the field,
the value and the limit; nothing here reads a clock or a file. `Request.to_json` and `Request.from_json` are
the protocol between the tokenizer step and the engine step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

from engine.core.contract import INPUTS, LIMITS, EarlyStoppingChoice, SamplingInputs
from engine.core.errors import InvalidArgument, shown
from engine.core.limits import MAX_INT32, Limit

MAX_BIASED_TOKENS: Final = 1024
_TOKEN: Final = Limit(int, 0, MAX_INT32)
_BIAS: Final = Limit(float, -100, 100)
# Of the fields of Sampling those that are texts, any number of them.
WORDS: Final = tuple(name for name, one in INPUTS.items() if one.many)
# Those that a request may leave open.
OPTIONAL: Final = tuple(one.name for one in fields(SamplingInputs) if one.default is None)


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"


@dataclass(frozen=True, slots=True)
class Sampling(SamplingInputs):
    """How tokens are chosen and when to stop. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off.

    More than one beam is a search (transformers' `generate`): the answer that scores best as a whole, which
    neither samples, nor streams, nor reports log-probabilities, nor ends at stop words. With `early_stopping`
    false it is over when the best running beam, at its length, no longer beats the worst finished one; true:
    as soon as `num_beams` are finished; never: when no running beam could, at the length that suits it best.
    """

    suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field, limit in LIMITS.items():
            value = getattr(self, field)
            if value is not None or field not in OPTIONAL:
                limit.check(field, value)
        for token, bias in self.logit_bias:
            _TOKEN.check("logit_bias", token)
            _BIAS.check("logit_bias", bias)
        for token in self.suppress_tokens:
            _TOKEN.check("suppress_tokens", token)
        for field in WORDS:
            for word in getattr(self, field):
                _check_word(field, word)
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


def _check_word(field: str, word: object) -> None:
    if not isinstance(word, str) or not word or not is_unicode(word):
        raise InvalidArgument(field, f"{shown(word)}, must be Unicode text of at least 1 character")


def parse_early_stopping(value: object) -> EarlyStoppingChoice:
    """Raises InvalidArgument for what is none of the three."""
    for member in EarlyStoppingChoice:
        if value == member:
            return member
    raise InvalidArgument(
        "early_stopping", f"{shown(value)}, must be one of {', '.join(EarlyStoppingChoice)}"
    )


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
            sampling |= {field: tuple(sampling.get(field, ())) for field in WORDS}
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
