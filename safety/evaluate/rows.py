"""The lines of a table of results."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A measured value with its interval of 95 %, over `n` items of a set's category; "" is the whole set."""

    set: str
    protocol: str
    category: str
    measure: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Drift:
    """How two models differ over the same `n` items: `flips` is the share on which they prefer another
    option, with its interval of 95 %, `p` McNemar's exact probability of as uneven flips (None where no
    option is the right one), `kl` the mean divergence of the second's preferences from the first's in
    nats.
    """

    set: str
    protocol: str
    category: str
    flips: float
    low: float
    high: float
    p: float | None
    kl: float
    n: int
