"""A rule that is a pattern: bounded in length, searched in linear time, and refined by a check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import regex

from safety.rules.bounds import bounds
from safety.rules.rule import Finding
from safety.rules.spans import apart

# Of a match in a text from start to end: where what is found ends, or None if nothing is.
Check = Callable[[str, int, int], int | None]


@dataclass(frozen=True, slots=True)
class Pattern:
    """`pattern` is in the syntax that Python's re and the package regex share. A match in which `check` finds
    nothing is none. Where the pattern has a group called `secret`, the finding is that group alone.
    `needs` is a string that every match contains: texts without it are not searched.
    """

    name: str
    kind: str
    pattern: str
    check: Check | None = None
    needs: str = ""
    longest: int = field(init=False)
    search: regex.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "longest", bounds(self.pattern).longest)
        object.__setattr__(self, "search", regex.compile(self.pattern))

    def find(self, text: str) -> Iterator[Finding]:
        if self.needs in text:
            for start, end in apart(sorted(self._spans(text))):
                yield Finding(self.name, start, end)

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """The search goes on one character after the start of a match: a match that the check refuses hides
        no other.
        """
        part = "secret" if "secret" in self.search.groupindex else 0
        for match in self.search.finditer(text, overlapped=True):
            start, end = match.span(part)
            kept = end if self.check is None else self.check(text, start, end)
            if kept is not None:
                yield start, kept
