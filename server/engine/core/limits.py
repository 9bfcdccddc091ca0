"""Intervals of numbers, and how an error names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from engine.core.errors import InvalidArgument, shown

MAX_INT32: Final = 2**31 - 1
MAX_UINT64: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Limit:
    """`open_low` excludes the lower end."""

    kind: type[int] | type[float]
    low: float
    high: float
    open_low: bool = False

    def check(self, field: str, value: object) -> None:
        """Raises InvalidArgument for another type, NaN, and what is outside."""
        if isinstance(value, bool) or not isinstance(value, int | self.kind):
            raise InvalidArgument(field, f"{shown(value)}, must be {self._noun}")
        # Compared without a conversion: a float cannot distinguish the largest seeds, and no NaN compares.
        above = value > self.low if self.open_low else value >= self.low
        if not (above and value <= self.high):
            raise InvalidArgument(field, f"{shown(value)}, must be {self._noun} {self}")

    @property
    def _noun(self) -> str:
        return "a whole number" if self.kind is int else "a number"

    def __str__(self) -> str:
        if self.high == MAX_INT32:
            return f"of at least {self.low}"
        return f"in {'(' if self.open_low else '['}{self.low}, {self.high}]"
