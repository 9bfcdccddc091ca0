"""Stop sequences over a byte stream, and the text that is safe to send.

Stop sequences are text while the engine has tokens, and one may begin in the middle of a token and end in
another. `StopMatcher` follows all of them a byte at a time (Knuth, Morris, Pratt 1977); its states tell how
many bytes at the end could still become a stop sequence, and these are held back.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.core.tokens import TokenTable, complete_length


class StopMatcher:
    """`held` bytes at the end of the stream are a proper prefix of some stop sequence."""

    def __init__(self, words: tuple[bytes, ...]) -> None:
        assert all(words), "an empty stop sequence would match everywhere"
        # Longest first: of two that end on the same byte, the one that began earlier wins.
        self._words = sorted(words, key=len, reverse=True)
        self._failures = [_failure(word) for word in self._words]
        self._states = [0] * len(words)

    @property
    def held(self) -> int:
        return max(self._states, default=0)

    def push(self, data: bytes, match: bool = True) -> int | None:
        """Where, counted from the start of `data`, the first stop sequence begins (so it may be negative).

        Without `match` those that end in `data` do not count.
        """
        if not self._words:
            return None
        for position, byte in enumerate(data, 1):
            for index, word in enumerate(self._words):
                if self._completes(index, word, byte) and match:
                    return position - len(word)
        return None

    def _completes(self, index: int, word: bytes, byte: int) -> bool:
        state, failure = self._states[index], self._failures[index]
        while state and word[state] != byte:
            state = failure[state - 1]
        state += word[state] == byte
        complete = state == len(word)
        # What comes next may still end one that overlaps with this one.
        self._states[index] = failure[-1] if complete else state
        return complete


def _failure(word: bytes) -> list[int]:
    """For each end of the word, the length of its longest border (proper prefix that is also a suffix)."""
    borders = [0] * len(word)
    for end in range(1, len(word)):
        border = borders[end - 1]
        while border and word[border] != word[end]:
            border = borders[border - 1]
        borders[end] = border + (word[border] == word[end])
    return borders


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes `begin:end` of an answer, and the tokens they come from.

    `first` is the place of `tokens[0]` among the answer's tokens, `base` the place of its first byte.
    """

    first: int
    tokens: tuple[int, ...]
    base: int
    begin: int
    end: int

    def then(self, later: Piece) -> Piece:
        """This span and the one that follows it, as one; a space that is dropped lies between them."""
        if self.begin == self.end < later.begin:
            return later
        assert later.begin == self.end
        tokens = self.tokens[: later.first - self.first] + later.tokens
        return Piece(self.first, tokens, self.base, self.begin, later.end)


class TextStream:
    """The text of one answer, token by token: what may be sent, never cut inside a character or a stop
    sequence. With `drop_space` a leading space is not part of the answer.
    """

    def __init__(self, table: TokenTable, stop_words: tuple[bytes, ...], drop_space: bool = False) -> None:
        self._table = table
        self._drop_space = drop_space
        self._matcher = StopMatcher(stop_words)
        self._tokens: list[int] = []  # those not sent in full
        self._pending = bytearray()  # their bytes
        self._first = 0
        self._base = 0
        self._sent = 0
        self._cut: int | None = None

    def push(self, token: int, match: bool = True) -> bool:
        """Add a token; true when it completes a stop sequence. Without `match` it can begin one, not complete
        it.
        """
        assert self._cut is None, "nothing follows a stop sequence"
        data = self._table[token]
        before = self._base + len(self._pending)
        self._tokens.append(token)
        self._pending += data
        if data and self._drop_space:
            self._sent, self._drop_space = int(data[:1] == b" "), False
        start = self._matcher.push(data, match)
        if start is not None:
            self._cut = before + start
        return start is not None

    def take(self, final: bool = False) -> Piece:
        """What can be sent now and was not yet; with `final`, all that is left."""
        end = max(self._sent, self._safe_end(final))
        span = Piece(self._first, tuple(self._tokens), self._base, self._sent, end)
        self._sent = end
        self._drop_sent()
        return span

    def _safe_end(self, final: bool) -> int:
        if self._cut is not None:
            return self._cut
        total = self._base + len(self._pending)
        if final:
            return total
        whole = self._sent + complete_length(bytes(self._pending[self._sent - self._base :]))
        return min(whole, total - self._matcher.held)

    def _drop_sent(self) -> None:
        while self._tokens and self._base + (size := len(self._table[self._tokens[0]])) <= self._sent:
            del self._tokens[0], self._pending[:size]
            self._first += 1
            self._base += size
