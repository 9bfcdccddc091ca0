"""What the benchmarks' commands take as arguments."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}, must be a whole number of at least 1")
    return int(text)


def decimal(must: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """A parser of a finite number that `fits`; `must` says so in words."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and fits(value)):
            raise argparse.ArgumentTypeError(f"{text}, must be a number {must}")
        return value

    return parse


above_zero = decimal("above 0", lambda value: value > 0)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive(part) for part in text.split(",")}))


def names_of(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of some of these names, each once, with commas or blanks between."""
    allowed = tuple(known)

    def names(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(text.replace(",", " ").split())) or ("",)
        for name in found:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name}, must be one of {listed(allowed)}")
        return found

    return names


def listed(values: Iterable[object]) -> str:
    return ",".join(map(str, values))
