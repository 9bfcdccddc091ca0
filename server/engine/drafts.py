"""Prompt-lookup speculation: the next tokens, guessed from the tokens that a sequence already has.

A summary, an edit or an answer about code repeats its prompt. What followed the last two or three tokens when
they occurred before is proposed, and computed together with the token that is due; what the model would have
chosen anyway is kept (Saxena, "Prompt Lookup Decoding", 2023; Leviathan et al., 2023, for the idea). Answers
do not change: a proposed token stays only where the sequence's own choice, drawn with its own random numbers,
is that token.

Rules of this file: tokens in, tokens out. No clock, no thread, no array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# The same three tokens are followed by the same token more often than the same two; one token hardly ever is.
_LENGTHS: Final = (3, 2)
# Tokens that one step computes, the due ones included: more of them take longer than they may save.
TOGETHER: Final = 16
# After a draft of which nothing was accepted, so many steps run without one.
_REST: Final = 8


class Drafter:
    """Drafts for one sequence. `tokens` is its own list, which grows; `most` is the longest draft."""

    def __init__(self, tokens: Sequence[int], most: int) -> None:
        self._tokens = tokens
        self._most = most
        self._length = most
        self._rest = 0
        self._indexed = 0
        # Where the tokens after an n-gram's last occurrence begin.
        self._after: dict[tuple[int, ...], int] = {}

    def propose(self, room: int) -> tuple[int, ...]:
        """At most `room` tokens after the last one; none if its n-gram has not occurred before."""
        self._index()
        if self._rest:
            self._rest -= 1
            return ()
        for length in _LENGTHS:
            begin = self._after.get(tuple(self._tokens[-length:]))
            if begin is not None:
                period = len(self._tokens) - begin
                return tuple(self._tokens[begin + i % period] for i in range(min(room, self._length)))
        return ()

    def kept(self, proposed: int, kept: int) -> None:
        """Called with the number of proposed tokens that became the answer's: it sets the next draft's
        length.
        """
        if kept == proposed:
            self._length = min(self._most, 2 * max(self._length, proposed))
        else:
            self._length = max(1, kept + 1)
        if not kept:
            self._rest = _REST

    def _index(self) -> None:
        """Every n-gram but the one at the end, which would find itself."""
        for end in range(self._indexed + 1, len(self._tokens)):
            for length in _LENGTHS:
                if end >= length:
                    self._after[tuple(self._tokens[end - length : end])] = end
        self._indexed = max(self._indexed, len(self._tokens) - 1)


def room_for_drafts(running: int) -> int:
    """How many tokens each of so many rows may add to a step."""
    return max(TOGETHER - running, 0) // running if running else 0
