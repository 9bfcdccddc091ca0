"""What users send: rates over time in units of one replica's capacity, Poisson arrivals, lengths of prompts.

A shape is a list of (seconds, rate) joined by lines; a step is two points at one time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from k8s.autoscaling.replica import Request

Shape = Sequence[tuple[float, float]]
Lengths = Callable[[random.Random], tuple[int, int]]

P90: Final = 1.2815515655446004  # of the standard normal distribution
LONGEST: Final = 1900

SHAPES: Final[Mapping[str, Shape]] = {
    "steps": [(0, 0.5), (300, 0.5), (300, 2), (780, 2), (780, 4), (1260, 4), (1260, 1), (1800, 1)],
    "ramp": [(0, 0.5), (180, 0.5), (900, 5), (1020, 5), (1500, 0.5), (1800, 0.5)],
    "burst": [
        *[(0, 1), (420, 1), (420, 5), (540, 5), (540, 1), (960, 1), (960, 5), (1080, 5)],
        *[(1080, 1), (1800, 1)],
    ],
    # A day in two hours: half of it night.
    "day": [(0, 0.3), (2400, 0.3), (3600, 4), (5400, 4), (6600, 0.3), (7200, 0.3)],
    # Minute by minute, as of a service whose users come and go together; drawn once, from gamma with a
    # coefficient of variation of 0.5 and a mean of 2.5.
    "azure": [
        *[(0, 1.6), (90, 3.2), (180, 2.1), (270, 4.4), (360, 1.2), (450, 2.8), (540, 2.0), (630, 3.9)],
        *[(720, 5.1), (810, 3.0), (900, 1.9), (990, 1.1), (1080, 2.4), (1170, 3.6), (1260, 1.7)],
        *[(1350, 2.2), (1440, 4.0), (1530, 2.6), (1620, 1.4), (1710, 0.9), (1800, 1.5)],
    ],
}


def rate(shape: Shape, at_s: float) -> float:
    """The last point's beyond the end."""
    for (left, low), (right, high) in pairwise(shape):
        if left <= at_s < right:
            return low + (high - low) * (at_s - left) / (right - left)
    return shape[-1][1]


def poisson(shape: Shape, unit_per_s: float, lengths: Lengths, seed: int) -> Iterator[Request]:
    """Arrivals until the shape's end, by thinning; the same seed gives the same requests."""
    rng = random.Random(seed)
    highest = max(value for _, value in shape)
    now = 0.0
    while (now := now + rng.expovariate(highest * unit_per_s)) < shape[-1][0]:
        if rng.random() * highest <= rate(shape, now):
            prompt, output = lengths(rng)
            yield Request(now, prompt, output)


def chat(rng: random.Random) -> tuple[int, int]:
    """Tokens in and out of the load profile `chat`."""
    return _lognormal(rng, 160, 480, 16, 1400), _lognormal(rng, 48, 128, 4, 384)


# Published quantiles of the Azure LLM inference trace 2023, conversations (CC-BY 4.0; Patel et al.,
# "Splitwise", ISCA 2024), a quarter as long: the model here is small and its context 2048.
_SCALE: Final = 0.25
_IN: Final = ((0.0, 40), (0.1, 207), (0.5, 1020), (0.9, 2735), (0.99, 4142), (1.0, 4600))
_OUT: Final = ((0.0, 14), (0.1, 54), (0.5, 129), (0.9, 424), (0.99, 601), (1.0, 660))


def conversation(rng: random.Random) -> tuple[int, int]:
    """Tokens in and out of a published conversation service, a quarter of them."""
    return _quantile(_IN, rng.random()), _quantile(_OUT, rng.random())


LENGTHS: Final[Mapping[str, Lengths]] = {"azure": conversation}


def lengths_of(load: str) -> Lengths:
    return LENGTHS.get(load, chat)


def _lognormal(rng: random.Random, median: float, p90: float, least: int, most: int) -> int:
    found = median * math.exp(rng.gauss(0, math.log(p90 / median) / P90))
    return round(min(max(found, least), most))


def _quantile(points: Sequence[tuple[float, float]], share: float) -> int:
    """The logarithm is linear between the points."""
    for (left, low), (right, high) in pairwise(points):
        if share <= right:
            found: float = low * (high / low) ** ((share - left) / (right - left))
            return max(1, min(LONGEST, round(found * _SCALE)))
    raise ValueError(f"share {share}: must be from 0 to 1")
