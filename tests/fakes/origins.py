"""Text as a list of characters, each with who wrote it: the model that traced text is compared with."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.prompts.traced import Traced, first_of_message

TEMPLATE, MESSAGE = "\1", "\0"
Pairs = list[tuple[str, str]]


def text(of: Pairs) -> str:
    return "".join(character for character, _ in of)


def of_template(made: str) -> Pairs:
    return [(character, TEMPLATE) for character in made]


def of_message(made: str) -> Pairs:
    return [(character, MESSAGE) for character in made]


def one_origin(made: str, *parts: Pairs) -> Pairs:
    """Where characters cannot be told apart: a message's if any part is."""
    held = any(origin == MESSAGE for part in parts for _, origin in part)
    return of_message(made) if held else of_template(made)


def cut(of: Pairs, at: list[tuple[int, int]]) -> list[Pairs]:
    """What lies between the spans `at`, and before and behind them."""
    starts, ends = [0, *(end for _, end in at)], [*(start for start, _ in at), len(of)]
    return [of[start:end] for start, end in zip(starts, ends, strict=True)]


def found(of: Pairs, sep: str, count: int = -1) -> list[tuple[int, int]]:
    """Where `sep` stands, at most `count` times where that is not negative."""
    spans = [match.span() for match in re.finditer(re.escape(sep), text(of))]
    return spans if count < 0 else spans[:count]


def stripped(of: Pairs, drop: str) -> Pairs:
    """Without what it begins with, as long as it matches `drop`."""
    while of and re.match(drop, of[0][0]):
        of = of[1:]
    return of


def joined(between: Pairs, parts: list[Pairs]) -> Pairs:
    made: Pairs = []
    for index, part in enumerate(parts):
        made += (between if index else []) + part
    return made


def as_traced(of: Pairs) -> Traced:
    return Traced(text(of), "".join(origin for _, origin in of).encode())


def as_pairs(of: str) -> Pairs:
    assert isinstance(of, Traced), "a plain str would be the template's"
    origins = (
        TEMPLATE if first_of_message(of, place, place + 1) is None else MESSAGE for place in range(len(of))
    )
    return list(zip(str.__str__(of), origins, strict=True))


def all_pairs(of: Iterable[str]) -> list[Pairs]:
    return [as_pairs(part) for part in of]
