"""What a rule is: a name, a bound on the length of its matches, and a search for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class RuleError(Exception):
    """A rule that cannot be used; the text names its file, its place and the reason."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The characters `start` to `end` of a text, found by the rule of that name."""

    rule: str
    start: int
    end: int


class Rule(Protocol):
    """`kind` is what it guards: personal, secret, words. No match has more than `longest` characters, so a
    guard of a stream holds back that many at most.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def longest(self) -> int: ...

    def find(self, text: str) -> Iterator[Finding]:
        """In the order of the text, without overlaps."""
