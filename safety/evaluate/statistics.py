"""Intervals and tests of 95 %: of shares, of means, of flips between two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from safety.intervals import Interval

_DRAWS: Final = 2000
_SEED: Final = 0


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided probability of flips at least as uneven, if both directions are as likely
    (McNemar 1947, by the binomial distribution); 1 without any flip.
    """
    flips, tail, ways = gained + lost, 0, 1
    for k in range(min(gained, lost) + 1):
        tail += ways
        ways = ways * (flips - k) // (k + 1)
    # Whole numbers divide exactly, also where 2 ** flips is beyond a float.
    p: float = 2 * tail / 2**flips
    return min(1.0, p)


def bootstrap(
    rows: NDArray[Any], measure: Callable[[NDArray[Any]], float] = lambda drawn: float(drawn.mean())
) -> Interval:
    """The percentile interval (Efron 1979) of a measure of items, one in each row of [n] or [n, columns].

    Items are drawn as wholes, so what belongs to one item stays paired. The seed is fixed: the same rows
    give the same interval. One item has no spread, and the interval is as wide as the item says.
    """
    random = np.random.default_rng(_SEED)
    draws = (rows[random.integers(0, len(rows), len(rows))] for _ in range(_DRAWS))
    low, high = np.nanquantile([measure(drawn) for drawn in draws], [0.025, 0.975])
    return float(low), float(high)


def kl(first: Sequence[float], second: Sequence[float]) -> float:
    """The divergence of the preferences `second` from `first`, sum p log(p / q), in nats.

    Infinite where `second` rules out what `first` does not.
    """
    terms = (p * math.log(p / q) if q > 0 else math.inf for p, q in zip(first, second, strict=True) if p > 0)
    # Rounding may leave less than nothing.
    return max(0.0, math.fsum(terms))
