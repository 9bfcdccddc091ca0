"""A checkpoint's defaults for generation: generation_config.json in the words of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from build.architecture import completed
from build.checkpoint import Checkpoint
from build.errors import BadInput

_FILE: Final = "generation_config.json"
_MOST: Final = 2**31 - 1
_WHOLE: Final = "a whole number"
# The limits of a request's inputs (contract/inputs.toml), of which these are the defaults.
LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 100),
    "top_p": (0, _MOST),
    "top_k": (-_MOST, _MOST),
    "min_p": (0, 1),
    "repetition_penalty": (0.001, 10),
    "num_beams": (1, 64),
    "length_penalty": (-5, 5),
    "no_repeat_ngram_size": (-_MOST, _MOST),
}
# Settings that no engine supports, each with the values that turn it off.
_UNSERVED: Final[Mapping[str, tuple[Any, ...]]] = {
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "top_h": (None,),
    "penalty_alpha": (None, 0.0),
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "diversity_penalty": (None, 0.0),
    "num_beam_groups": (None, 1),
    "exponential_decay_length_penalty": (None,),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None, {}),
    "guidance_scale": (None, 1.0),
    "renormalize_logits": (None, False),
    "stop_strings": (None, []),
    "forced_decoder_ids": (None, []),
    "max_time": (None,),
}


def generation(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's settings for generation; greedy unless it says do_sample.

    Lengths count new tokens. transformers' `min_length` and `max_length` also count the decoder's start token
    or, for a decoder alone, the prompt, which is unknown here: then only `..._new_tokens` are taken.
    BadInput for a value that no request could be served with.
    """
    settings = checkpoint.generation
    return {
        "eos_token_ids": _eos_ids(checkpoint),
        **_sampling(settings),
        "repetition_penalty": _number(settings, "repetition_penalty", 1.0),
        "decoder_start_token_id": _token(checkpoint, "decoder_start_token_id"),
        "forced_bos_token_id": _token(checkpoint, "forced_bos_token_id"),
        "forced_eos_token_id": _token(checkpoint, "forced_eos_token_id"),
        "num_beams": _whole(settings, "num_beams", 1),
        "length_penalty": _number(settings, "length_penalty", 1.0),
        "early_stopping": _early_stopping(settings),
        "no_repeat_ngram_size": max(_whole(settings, "no_repeat_ngram_size", 0), 0),
        "min_tokens": max(_length(checkpoint, "min") or 0, 0),
        "max_tokens": _most_tokens(checkpoint),
        "suppress_tokens": _suppressed(checkpoint),
    }


def unserved(checkpoint: Checkpoint) -> list[str]:
    """Settings of the checkpoint that no engine supports, one phrase each."""
    settings = checkpoint.generation
    found = [f"{key} {settings[key]!r}" for key, off in _UNSERVED.items() if settings.get(key) not in off]
    words = [word for word in settings.get("bad_words_ids") or [] if len(word) > 1]
    return [*found, *(["bad_words_ids of several tokens"] if words else [])]


def decoder_start(checkpoint: Checkpoint) -> int:
    """The token that an encoder-decoder's answers begin with; BadInput where none is named."""
    start = _token(checkpoint, "decoder_start_token_id")
    if start is None:
        raise BadInput(
            "the checkpoint names no token that answers begin with: add decoder_start_token_id to"
            " generation_config.json"
        )
    return start


def _sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How tokens are drawn: greedily also where `temperature` or `top_p` is 0.

    `top_k` below 1, and `top_p` from 1 on, leave all tokens.
    """
    temperature = _number(settings, "temperature", 1.0)
    top_p = _number(settings, "top_p", 1.0)
    if not settings.get("do_sample") or temperature == 0 or top_p == 0:
        return {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    return {
        "temperature": temperature,
        "top_p": min(top_p, 1.0),
        "top_k": max(_whole(settings, "top_k", 50), 0),
        "min_p": _number(settings, "min_p", 0.0),
    }


def _length(checkpoint: Checkpoint, end: str) -> int | None:
    new = _optional(checkpoint.generation, f"{end}_new_tokens")
    whole = _optional(checkpoint.generation, f"{end}_length")
    if new is not None or whole is None or not checkpoint.config.get("is_encoder_decoder"):
        return new
    return whole - 1


def _most_tokens(checkpoint: Checkpoint) -> int | None:
    most = _length(checkpoint, "max")
    if most is not None and most < 1:
        problem = "must leave at least 1 new token; leave it out for no limit"
        name = "max_new_tokens" if checkpoint.generation.get("max_new_tokens") is not None else "max_length"
        raise BadInput(f"{_FILE}: {name}: {checkpoint.generation[name]!r}, {problem}")
    return most


def _early_stopping(settings: Mapping[str, Any]) -> str:
    value = settings.get("early_stopping")
    if value not in (None, False, True, "never"):
        raise BadInput(f"{_FILE}: early_stopping: {value!r}, must be true, false or 'never'")
    return str(value or False).lower()


def _suppressed(checkpoint: Checkpoint) -> list[int]:
    """Tokens that are never chosen: what `suppress_tokens` lists, and bad words of one token.

    As in transformers, the end of a sequence is no bad word, since no answer would end; an id that the model
    does not have is ignored.
    """
    settings = checkpoint.generation
    words = settings.get("bad_words_ids") or []
    bad = {word[0] for word in words if len(word) == 1} - set(_eos_ids(checkpoint))
    listed = {*(settings.get("suppress_tokens") or []), *bad}
    return sorted(token for token in listed if 0 <= token < _vocabulary(checkpoint))


def _eos_ids(checkpoint: Checkpoint) -> list[int]:
    """The ids that end a sequence and that the model can choose."""
    ids = checkpoint.generation.get("eos_token_id")
    listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(isinstance(index, int) and not isinstance(index, bool) for index in listed):
        raise BadInput(f"{_FILE}: eos_token_id: {ids!r}, must be ids")
    return [index for index in listed if 0 <= index < _vocabulary(checkpoint)]


def _vocabulary(checkpoint: Checkpoint) -> int:
    """The number of tokens that answers are made of."""
    config = completed(checkpoint.config)
    return int(config.get("decoder_vocab_size") or config["vocab_size"])


def _number(settings: Mapping[str, Any], key: str, default: float, kind: str = "a number") -> float:
    """A value within its LIMITS; of the kind "a whole number" it has no fraction."""
    value = settings.get(key)
    value = default if value is None else value
    low, high = LIMITS[key]
    given = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not given or (kind == _WHOLE and value % 1):
        raise BadInput(f"{_FILE}: {key}: {value!r}, must be {kind} in [{low}, {high}]")
    return float(value)


def _whole(settings: Mapping[str, Any], key: str, default: int) -> int:
    return int(_number(settings, key, default, _WHOLE))


def _token(checkpoint: Checkpoint, key: str) -> int | None:
    """The id under a key, None where there is none; BadInput for one that the model does not have."""
    value = checkpoint.generation.get(key)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    most = _vocabulary(checkpoint) - 1
    if value is not None and (
        not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most
    ):
        raise BadInput(f"{_FILE}: {key}: {value!r}, must be a token's id in [0, {most}]")
    return value


def _optional(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value > _MOST):
        raise BadInput(f"{_FILE}: {key}: {value!r}, must be a whole number of at most {_MOST}")
    return value
