"""Whether two tools that measured the same thing, in turn and repeatedly, say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Repeats:
    """One figure of one tool, a value for each repeat; at least one."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    @property
    def spread(self) -> float:
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Agreement:
    """`ours` and `theirs` have one value a repeat, in the same order.

    The tools agree where their medians differ by no more than the repeats of one tool do among themselves:
    by the larger of the two spreads. At five repeats of tools that are the same this fails once in 250 times;
    to ask that each median lie within the other tool's range would fail more than once in four.
    """

    name: str
    ours: Repeats
    theirs: Repeats

    @property
    def difference(self) -> float:
        """Ours less theirs, of the medians."""
        return self.ours.median - self.theirs.median

    @property
    def relative(self) -> float:
        """The difference by their median, which is above zero."""
        return self.difference / self.theirs.median

    @property
    def spread(self) -> float:
        return max(self.ours.spread, self.theirs.spread)

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.spread


def agreement(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
    assert ours, "no repeat"
    assert len(ours) == len(theirs), "one value of each tool for each repeat"
    return Agreement(name, Repeats(tuple(ours)), Repeats(tuple(theirs)))
