"""Numbers of tokens, drawn. Every distribution takes the generator of random numbers that it draws from."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import NormalDist
from typing import Any

from loadtest.errors import TrafficError
from loadtest.traffic.table import MAX_TOKENS, Table, shown

_Z90 = NormalDist().inv_cdf(0.9)
# Of two probabilities: a nearer pair says nothing, and its slope overflows.
_MIN_GAP = 1e-6


@dataclass(frozen=True, slots=True)
class Constant:
    tokens: int

    def sample(self, _random: Random) -> int:
        return self.tokens

    def as_table(self) -> dict[str, Any]:
        return {"constant": self.tokens}


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every whole number from `least` to `most` alike, both included."""

    least: int
    most: int

    def sample(self, random: Random) -> int:
        return random.randint(self.least, self.most)

    def as_table(self) -> dict[str, Any]:
        return {"uniform": [self.least, self.most]}


@dataclass(frozen=True, slots=True)
class Lognormal:
    """By its median and its 90th percentile; what lies outside `min` and `max` is moved to them."""

    median: float
    p90: float
    min: int = 1
    max: int = MAX_TOKENS

    def sample(self, random: Random) -> int:
        sigma = math.log(self.p90 / self.median) / _Z90
        drawn = math.exp(min(random.gauss(math.log(self.median), sigma), math.log(MAX_TOKENS)))
        return _bounded(drawn, self.min, self.max)

    def as_table(self) -> dict[str, Any]:
        return {"lognormal": {"median": self.median, "p90": self.p90, "min": self.min, "max": self.max}}


@dataclass(frozen=True, slots=True)
class Quantiles:
    """By points (probability, tokens), the logarithm of the tokens linear between them.

    Beyond the outermost points their segments go on, up to `min` and `max`: the tails are a guess.
    """

    points: tuple[tuple[float, float], ...]
    min: int = 1
    max: int = MAX_TOKENS

    def sample(self, random: Random) -> int:
        return _bounded(self.at(random.random()), self.min, self.max)

    def at(self, probability: float) -> float:
        """The quantile, before it is rounded and bounded."""
        if len(self.points) == 1:
            return self.points[0][1]
        place = bisect_right(self.points, probability, key=lambda point: point[0])
        right = min(max(place, 1), len(self.points) - 1)
        (p0, low), (p1, high) = self.points[right - 1 : right + 1]
        part = (probability - p0) / (p1 - p0)
        exponent = math.log(low) + part * math.log(high / low)
        return math.exp(min(exponent, math.log(MAX_TOKENS)))

    def as_table(self) -> dict[str, Any]:
        points = {repr(probability): tokens for probability, tokens in self.points}
        return {"quantiles": points, "min": self.min, "max": self.max}


@dataclass(frozen=True, slots=True)
class Choices:
    """Some lengths, each as often as its weight says."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]

    def sample(self, random: Random) -> int:
        return random.choices(self.tokens, self.weights)[0]

    def as_table(self) -> dict[str, Any]:
        return {"choices": list(self.tokens), "weights": list(self.weights)}


Lengths = Constant | Uniform | Lognormal | Quantiles | Choices
KINDS = ("constant", "uniform", "lognormal", "quantiles", "choices")


def lengths_of(table: Table) -> Lengths:
    """The distribution of a table such as `{constant = 128}`."""
    named = [kind for kind in KINDS if table.has(kind)]
    if len(named) != 1:
        raise TrafficError(f"{table.place}: {named or 'nothing'}, must have one of {', '.join(KINDS)}")
    readers = {
        "constant": _constant, "uniform": _uniform, "lognormal": _lognormal, "quantiles": _quantiles,
        "choices": _choices,
    }  # fmt: skip
    found = readers[named[0]](table)
    table.close()
    return found


def _constant(table: Table) -> Lengths:
    return Constant(table.whole("constant"))


def _uniform(table: Table) -> Lengths:
    bounds = table.list("uniform")
    if len(bounds) != 2:
        raise table.fault("uniform", bounds, "must be two whole numbers")
    least, most = _wholes(table, "uniform", bounds)
    if least > most:
        raise table.fault("uniform", bounds, "must have the smaller number first")
    return Uniform(least, most)


def _lognormal(table: Table) -> Lengths:
    inner = table.table("lognormal")
    median = inner.number("median", least=1, most=MAX_TOKENS)
    p90 = inner.number("p90", least=median, most=MAX_TOKENS)
    bounds = _bounds(inner)
    inner.close()
    return Lognormal(median, p90, *bounds)


def _quantiles(table: Table) -> Lengths:
    inner = table.table("quantiles")
    points = sorted(
        (_probability(inner, key), inner.number(key, least=1, most=MAX_TOKENS)) for key in inner.names()
    )
    if not points:
        raise table.fault("quantiles", {}, 'must have at least one point such as "0.5" = 128')
    for (p0, low), (p1, high) in pairwise(points):
        if p1 - p0 < _MIN_GAP:
            raise TrafficError(f"{inner.place}: {p0:g} and {p1:g}, must be {_MIN_GAP:g} apart")
        if high < low:
            raise TrafficError(
                f'{inner.place}: "{p1:g}" = {high:g}, must be at least the {low:g} of "{p0:g}"'
            )
    return Quantiles(tuple(points), *_bounds(table))


def _choices(table: Table) -> Lengths:
    tokens = _wholes(table, "choices", table.list("choices"))
    weights = table.list("weights", [1.0] * len(tokens))
    if len(weights) != len(tokens):
        raise table.fault("weights", weights, f"must have {len(tokens)} numbers, one for each choice")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise table.fault("weights", weight, "must be a number of at least 0")
    if not sum(weights) > 0:
        raise table.fault("weights", weights, "must not all be 0")
    return Choices(tokens, tuple(map(float, weights)))


def _bounds(table: Table) -> tuple[int, int]:
    least = table.whole("min", 1)
    return least, table.whole("max", MAX_TOKENS, least=least)


def _probability(table: Table, key: str) -> float:
    try:
        probability = float(key)
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        raise TrafficError(f"{table.place}: {shown(key)}, must be a probability from 0 to 1")
    return probability


def _wholes(table: Table, key: str, values: Any) -> tuple[int, ...]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOKENS:
            raise table.fault(key, value, f"must be a whole number from 1 to {MAX_TOKENS:,}")
    return tuple(values)


def _bounded(drawn: float, least: int, most: int) -> int:
    return min(max(round(drawn), least), most)
