"""How a checkpoint wants its answers generated: generation_config.json in the words of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from build.checkpoint import Checkpoint
from build.errors import BadInput


def generation(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's own way to generate; greedy unless it says do_sample.

    Lengths count new tokens. transformers' `min_length` and `max_length` count the decoder's start token too,
    and with a decoder alone the prompt, which nobody knows here: there only its `..._new_tokens` are taken.
    """
    settings = checkpoint.generation
    sample = bool(settings.get("do_sample", False))
    return {
        "eos_token_ids": _eos_ids(settings),
        "temperature": _number(settings, "temperature", 1.0) if sample else 0.0,
        "top_p": _number(settings, "top_p", 1.0) if sample else 1.0,
        "top_k": int(_number(settings, "top_k", 50)) if sample else 0,
        "min_p": _number(settings, "min_p", 0.0) if sample else 0.0,
        "repetition_penalty": _number(settings, "repetition_penalty", 1.0),
        "decoder_start_token_id": _optional(settings, "decoder_start_token_id"),
        "forced_bos_token_id": _optional(settings, "forced_bos_token_id"),
        "forced_eos_token_id": _optional(settings, "forced_eos_token_id"),
        "num_beams": int(_number(settings, "num_beams", 1)),
        "length_penalty": _number(settings, "length_penalty", 1.0),
        "early_stopping": _early_stopping(settings),
        "no_repeat_ngram_size": int(_number(settings, "no_repeat_ngram_size", 0)),
        "min_tokens": max(_length(checkpoint, "min") or 0, 0),
        "max_tokens": _length(checkpoint, "max"),
        "suppress_tokens": _suppressed(settings),
    }


def decoder_start(checkpoint: Checkpoint) -> int:
    """The token that an encoder-decoder's answers begin with; BadInput where none is named."""
    start = _optional(checkpoint.generation, "decoder_start_token_id")
    if start is None:
        raise BadInput(
            "the checkpoint names no token that answers begin with: add decoder_start_token_id to"
            " generation_config.json"
        )
    return start


def _length(checkpoint: Checkpoint, end: str) -> int | None:
    new = _optional(checkpoint.generation, f"{end}_new_tokens")
    whole = _optional(checkpoint.generation, f"{end}_length")
    if new is not None or whole is None or not checkpoint.config.get("is_encoder_decoder"):
        return new
    return whole - 1


def _early_stopping(settings: Mapping[str, Any]) -> str:
    value = settings.get("early_stopping")
    if value not in (None, False, True, "never"):
        raise BadInput(f"generation_config.json: early_stopping: {value!r}, must be true, false or 'never'")
    return str(value or False).lower()


def _suppressed(settings: Mapping[str, Any]) -> list[int]:
    """Tokens that are never chosen: what `suppress_tokens` lists, and bad words of one token.

    As in transformers, the end of a sequence is no bad word: no answer would end.
    """
    words = settings.get("bad_words_ids") or []
    bad = {word[0] for word in words if len(word) == 1} - set(_eos_ids(settings))
    return sorted({*(settings.get("suppress_tokens") or []), *bad})


def _eos_ids(settings: Mapping[str, Any]) -> list[int]:
    ids = settings.get("eos_token_id")
    listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(isinstance(index, int) for index in listed):
        raise BadInput(f"generation_config.json: eos_token_id: {ids!r}, must be ids")
    return listed


def _number(settings: Mapping[str, Any], key: str, default: float) -> float:
    value = settings.get(key)
    value = default if value is None else value
    if not isinstance(value, (int, float)):
        raise BadInput(f"generation_config.json: {key}: {value!r}, must be a number")
    return float(value)


def _optional(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    if value is not None and not isinstance(value, int):
        raise BadInput(f"generation_config.json: {key}: {value!r}, must be a whole number")
    return value
