"""How long a chunk of a prompt is, as server/engine/chunking.py decides it; a test compares both.

Beside running streams a chunk takes `stall` times as long as a decode did of late; a prompt of one chunk runs
whole. Its attention reads all of the past: `PAST_DOUBLES` positions before a token double what it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST: Final = 128
LEAST: Final = 16
GRAIN: Final = 8
FIRST: Final = 32
PAST_DOUBLES: Final = 1600
_NEWEST: Final = 0.25
_MOST: Final = 2.0


def weight(start: int, tokens: int) -> float:
    """Tokens of a prompt behind `start` others, in tokens that have nothing before them."""
    return tokens * (1 + (start + tokens / 2) / PAST_DOUBLES)


@dataclass(slots=True)
class Pace:
    """What a decode took of late, and a token of a prompt with nothing before it; 0 before the first."""

    decode_s: float = 0.0
    token_s: float = 0.0

    def decoded(self, seconds: float) -> None:
        self.decode_s = _blended(self.decode_s, seconds)

    def prefilled(self, start: int, tokens: int, seconds: float) -> None:
        self.token_s = _blended(self.token_s, seconds / weight(start, tokens))

    def chunk(self, stall: float, done: int, left: int, *, beside: bool) -> int:
        """Tokens of the next chunk, of `left` that are not computed and `done` that are."""
        whole = not done and weight(0, left) <= weight(0, LONGEST)
        if whole or not beside:
            return min(left, LONGEST)
        if not (self.decode_s and self.token_s):
            return min(left, FIRST)
        fitting = stall * self.decode_s / (self.token_s * weight(done, 1))
        return min(left, LONGEST, max(LEAST, int(fitting) // GRAIN * GRAIN))


def _blended(known: float, seconds: float) -> float:
    return known + _NEWEST * (min(seconds, _MOST * known) - known) if known else seconds
