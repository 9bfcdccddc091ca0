"""How long a match of a pattern can be, and in how many ways its search can go: is it fit for streams?"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# The standard library's parser reads the syntax that `re` and the package regex share. It has no public name.
_parser: Any = importlib.import_module("re._parser")
_UNBOUNDED = int(importlib.import_module("re._constants").MAXREPEAT)
# More ways than this from one start is a search that a hostile text can hold up.
WAYS = 100_000


# A brace that opens no repetition: to `re` it is a character, to regex it may begin a fuzzy match, whose
# length nothing here bounds. Escapes and sets are passed over.
_BRACE = re.compile(
    r"\\N\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<brace>\{(?!\d+(?:,\d*)?\}|,\d*\}))", re.DOTALL
)


class Unbounded(Exception):
    """A pattern whose matches or whose search have no bound; the text says where."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`longest` counts the characters of a match, and those of a look-around beyond the first. `ways` is an
    upper bound of the ways in which a search from one start can go on after a failure.
    """

    longest: int
    ways: int


def bounds(pattern: str) -> Bounds:
    """Raises re.error if the pattern does not parse, Unbounded if it has no bound or depends on where the
    text begins or ends, or means one thing to the parser and another to the search.
    """
    tree = _parsed(pattern)
    ways, around = _sequence(tree)
    if ways > WAYS:
        raise Unbounded(
            f"its search can go in more than {WAYS} ways from one start: "
            "make its repetitions possessive, {m,n}+"
        )
    return Bounds(int(tree.getwidth()[1]) + around, ways)


def _parsed(pattern: str) -> Any:
    for match in _BRACE.finditer(pattern):
        if match["brace"]:
            place = match.start() + 1
            raise Unbounded(f"the {{ at character {place} opens no repetition {{m,n}}: write \\{{")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        try:
            return _parser.parse(pattern)
        except FutureWarning as warning:
            raise Unbounded(f"{warning}: put a backslash before a sign that is meant as itself") from None


def _sequence(nodes: Iterable[tuple[Any, Any]]) -> tuple[int, int]:
    ways, around = 1, 0
    for operation, argument in nodes:
        more, wider = _node(str(operation), argument)
        # Beyond the limit the size says nothing more, and would only grow.
        ways, around = min(ways * more, WAYS + 1), around + wider
    return ways, around


def _node(operation: str, argument: Any) -> tuple[int, int]:
    result = 1, 0
    match operation:
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            result = _repeat(operation, *argument)
        case "SUBPATTERN":
            result = _sequence(argument[3])
        case "ATOMIC_GROUP":
            result = 1, _sequence(argument)[1]
        case "BRANCH":
            result = _branch(argument[1])
        case "GROUPREF_EXISTS":
            result = _branch([part for part in argument[1:] if part is not None])
        case "ASSERT" | "ASSERT_NOT":
            inner = argument[1]
            result = 1, max(0, int(inner.getwidth()[1]) - 1) + _sequence(inner)[1]
        case "AT":
            result = _anchor(str(argument))
    return result


def _repeat(operation: str, least: int, most: int, body: Any) -> tuple[int, int]:
    if int(most) == _UNBOUNDED:
        raise Unbounded("it has a repetition without an upper bound: give one, {m,n}")
    ways, around = _sequence(body)
    if operation == "POSSESSIVE_REPEAT":
        return 1, around
    total = 0
    for times in range(int(least), int(most) + 1):
        total += ways**times
        if total > WAYS:
            break
    return max(1, total), around


def _branch(parts: Iterable[Any]) -> tuple[int, int]:
    each = [_sequence(part) for part in parts]
    return sum(ways for ways, _ in each), max((around for _, around in each), default=0)


def _anchor(place: str) -> tuple[int, int]:
    if "BOUNDARY" not in place:
        raise Unbounded(
            r"it asks where the text begins or ends, which a stream does not know: leave out ^ $ \A \Z"
        )
    return 1, 0
