"""Numbers of tokens, drawn. Every distribution takes the generator of random numbers that it draws from."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import NormalDist
from typing import Annotated, Any

from loadtest.errors import TrafficError
from loadtest.fields import (
    MAX_TOKENS,
    Number,
    Tokens,
    Whole,
    at,
    fault,
    list_of,
    read,
    require_known,
    shown,
    table_of,
)

_Z90 = NormalDist().inv_cdf(0.9)
# Of two probabilities: a nearer pair says nothing, and its slope overflows.
_MIN_GAP = 1e-6
_TOKENS = Number(least=1, most=MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class Constant:
    tokens: int

    def sample(self, _random: Random) -> int:
        return self.tokens

    def as_table(self) -> dict[str, Any]:
        return {"constant": self.tokens}


@dataclass(frozen=True, slots=True)
class Uniform:
    """Each whole number from `least` to `most` is equally likely, both included."""

    least: int
    most: int

    def sample(self, random: Random) -> int:
        return random.randint(self.least, self.most)

    def as_table(self) -> dict[str, Any]:
        return {"uniform": [self.least, self.most]}


@dataclass(frozen=True, slots=True)
class Lognormal:
    """By its median and its 90th percentile; what lies outside `min` and `max` is moved to them."""

    median: Annotated[float, _TOKENS]
    p90: Annotated[float, _TOKENS]
    min: Tokens = 1
    max: Tokens = MAX_TOKENS

    def sample(self, random: Random) -> int:
        sigma = math.log(self.p90 / self.median) / _Z90
        drawn = math.exp(min(random.gauss(math.log(self.median), sigma), math.log(MAX_TOKENS)))
        return min(max(round(drawn), self.min), self.max)

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
        return min(max(round(self.at(random.random())), self.min), self.max)

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
_MORE = {"quantiles": ("min", "max"), "choices": ("weights",)}


def lengths_of(content: object, place: str) -> Lengths:
    """The distribution of a table such as `{constant = 128}`."""
    table = table_of(content, place)
    named = [kind for kind in KINDS if kind in table]
    if len(named) != 1:
        raise TrafficError(f"{place}: {named or 'nothing'}, must have one of {', '.join(KINDS)}")
    (kind,) = named
    require_known(table, place, (*KINDS, *_MORE.get(kind, ())))
    value, inside = table[kind], at(place, kind)
    match kind:
        case "constant":
            return Constant(Whole()(value, inside))
        case "uniform":
            if len(list_of(value, inside)) != 2:
                raise fault(inside, value, "must be two whole numbers")
            least, most = (Whole()(bound, inside) for bound in value)
            if least > most:
                raise fault(inside, value, "must have the smaller number first")
            return Uniform(least, most)
        case "lognormal":
            found = read(Lognormal, value, inside)
            Number(least=found.median)(value["p90"], at(inside, "p90"))
            Whole(found.min)(found.max, at(inside, "max"))
            return found
        case "quantiles":
            return _quantiles(table, place)
    return _choices(table, place)


def _quantiles(table: Mapping[str, Any], place: str) -> Quantiles:
    inside = at(place, "quantiles")
    given = table_of(table["quantiles"], inside)
    points = sorted((_probability(inside, key), _TOKENS(given[key], at(inside, key))) for key in given)
    if not points:
        raise fault(inside, {}, 'must have at least one point such as "0.5" = 128')
    for (p0, low), (p1, high) in pairwise(points):
        if p1 - p0 < _MIN_GAP:
            raise TrafficError(f"{inside}: {p0:g} and {p1:g}, must be {_MIN_GAP:g} apart")
        if high < low:
            raise TrafficError(f'{inside}: "{p1:g}" = {high:g}, must be at least the {low:g} of "{p0:g}"')
    least = Whole()(table.get("min", 1), at(place, "min"))
    return Quantiles(tuple(points), least, Whole(least)(table.get("max", MAX_TOKENS), at(place, "max")))


def _choices(table: Mapping[str, Any], place: str) -> Choices:
    inside, weighted = at(place, "choices"), at(place, "weights")
    tokens = tuple(Whole()(value, inside) for value in list_of(table["choices"], inside))
    if not tokens:
        raise fault(inside, [], "must be a list that is not empty")
    weights = list_of(table.get("weights", [1.0] * len(tokens)), weighted)
    if len(weights) != len(tokens):
        raise fault(weighted, weights, f"must have {len(tokens)} numbers, one for each choice")
    found = tuple(Number()(weight, weighted) for weight in weights)
    if not sum(found) > 0:
        raise fault(weighted, weights, "must not all be 0")
    return Choices(tokens, found)


def _probability(place: str, key: str) -> float:
    try:
        probability = float(key)
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        raise TrafficError(f"{place}: {shown(key)}, must be a probability from 0 to 1")
    return probability
