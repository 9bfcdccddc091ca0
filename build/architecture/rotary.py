"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864): frequencies and their scalings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from build.errors import BadInput, Unsupported


def inverse_frequencies(config: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """Rotary inverse frequencies, of a completed config.

    transformers 5 writes `rope_parameters`, and before it `rope_scaling`, which it takes where both stand.
    """
    rope = dict(config["rope_scaling"] or config["rope_parameters"] or {})
    rope.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    theta = float(rope.get("rope_theta", config["rope_theta"]))
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise Unsupported("partial rotary embeddings are not supported")
    plain = [theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2)]
    try:
        return tuple(_scaled(kind, rope, plain))
    except KeyError as missing:
        raise BadInput(f"config.json: rope scaling {kind}: {missing} is missing") from missing


def _scaled(kind: str, rope: Mapping[str, Any], plain: list[float]) -> list[float]:
    if kind == "default":
        return plain
    if kind == "linear":
        return [f / float(rope["factor"]) for f in plain]
    if kind == "llama3":
        return [_llama3(f, rope) for f in plain]
    if kind == "factors":  # a GGUF carries the divisors themselves
        return [f / float(by) for f, by in zip(plain, rope["factors"], strict=True)]
    raise Unsupported(f"rope scaling {kind!r} is not supported: default, linear and llama3 are")


def _llama3(frequency: float, rope: Mapping[str, Any]) -> float:
    """Long waves are slowed by `factor`, short ones kept, those between are blended."""
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    return (1 - kept) * frequency / float(rope["factor"]) + kept * frequency
