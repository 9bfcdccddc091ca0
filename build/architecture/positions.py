"""How positions enter a model, computed from its config: rotary frequencies, sinusoids, and the buckets of
relative distances.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build.architecture.seq2seq import RelativeBias
from build.errors import BadInput, Unsupported


def inverse_frequencies(config: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """Inverse frequencies of rotary embeddings (Su et al. 2021, arXiv:2104.09864), from a completed config.

    transformers 5 writes `rope_parameters`, older versions `rope_scaling`; of both it takes `rope_scaling`.
    """
    rope = dict(config["rope_scaling"] or config["rope_parameters"] or {})
    rope.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    theta = float(rope.get("rope_theta", config["rope_theta"]))
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise Unsupported("config.json: partial_rotary_factor: partial rotary embeddings are not supported")
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
    raise Unsupported(f"config.json: rope scaling {kind!r} is not supported: default, linear and llama3 are")


def _llama3(frequency: float, rope: Mapping[str, Any]) -> float:
    """Divides low frequencies by `factor`, keeps high ones, and blends those between."""
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    return (1 - kept) * frequency / float(rope["factor"]) + kept * frequency


def sinusoids(rows: int, size: int) -> NDArray[np.float32]:
    """[rows, size]: sines in the first half, cosines in the second (Marian's order)."""
    half = (size + 1) // 2
    frequencies = 10000.0 ** (-2.0 * np.arange(half) / size)
    angles = np.outer(np.arange(rows, dtype=np.float64), frequencies)
    table: NDArray[np.float32] = np.empty((rows, size), np.float32)
    table[:, :half] = np.sin(angles)
    table[:, half:] = np.cos(angles[:, : size - half])
    return table


def distance_buckets(relative: RelativeBias) -> NDArray[np.int64]:
    """The bucket of each distance, which is key position minus query position; farther ones share the last.

    From -max_distance to max_distance where the bias is bidirectional, else from -max_distance to 0: index
    `max_distance` is the query's own position.
    """
    far = relative.max_distance
    distances = np.arange(-far, far + 1 if relative.bidirectional else 1)
    if not relative.bidirectional:
        return _magnitude_buckets(-distances, relative.buckets, far)
    half = relative.buckets // 2
    return _magnitude_buckets(np.abs(distances), half, far) + half * (distances > 0)


def _magnitude_buckets(distances: NDArray[np.int64], buckets: int, far: int) -> NDArray[np.int64]:
    """Half of the buckets hold one distance each, the others grow with the logarithm up to `far`.

    Computed in integers, since libraries round logarithms differently: of `more` buckets, number n begins
    where (distance / single) ** more is (far / single) ** n.
    """
    single = buckets // 2
    more = buckets - single
    starts = [far**n * single ** (more - n) for n in range(1, more)]
    large = [single + bisect_right(starts, int(distance) ** more) for distance in distances]
    return np.where(distances < single, distances, large)
