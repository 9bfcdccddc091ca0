"""The roofline of decoding one sequence: every weight is read once a token, so bandwidth caps the rate."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_BYTES = 1 << 29  # of each thread; far beyond every cache
_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Roofline:
    """`bandwidth` is bytes read a second by all cores; `weights_bytes` is one byte a parameter."""

    bandwidth: float
    weights_bytes: int

    @property
    def tokens_per_s(self) -> float:
        return self.bandwidth / self.weights_bytes


def measure(checkpoint: Path, threads: int) -> Roofline:
    return Roofline(read_bandwidth(threads, _BYTES, _ROUNDS), parameters(checkpoint / "model.safetensors"))


def read_bandwidth(threads: int, size: int, rounds: int) -> float:
    """Bytes a second: the best of some rounds, in which each thread reduces its own array."""
    arrays = [np.ones(size // 8, np.uint64) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        times = [_round(pool, arrays) for _ in range(rounds)]
    return threads * arrays[0].nbytes / min(times)


def _round(pool: ThreadPoolExecutor, arrays: Sequence[NDArray[np.uint64]]) -> float:
    began = time.perf_counter()
    assert all(pool.map(np.bitwise_or.reduce, arrays))
    return time.perf_counter() - began


def parameters(safetensors: Path) -> int:
    """The number of weights in a safetensors file, by its header."""
    with safetensors.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
