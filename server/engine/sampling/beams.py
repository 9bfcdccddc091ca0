"""Beam search over the rows of one request, with the semantics of transformers' `generate`.

The search sees only scores and tokens. Row i of a step belongs to the i-th KV row of the request; `advance`
says which row each one continues. A row that continues keeps its place, so a row that is overwritten is never
read: the copies within the cache may run in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.core.contract import EarlyStoppingChoice
from engine.core.errors import NotFinite
from engine.core.request import Sampling
from engine.core.tokens import Vocabulary
from engine.sampling.processors import Floats, Ids, Processors

# The score of a beam that does not exist. As in transformers it is finite: equal rows begin with it, and are
# chosen when every other continuation is impossible.
NOTHING: Final = np.float32(-1e9)
_PARTS: Final = 256


class Branch(NamedTuple):
    """What a row becomes: a copy of row `parent`, with `token` appended."""

    parent: int
    token: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished answer; `score` is its log-probability over its length to the power of the penalty."""

    tokens: tuple[int, ...]
    score: float


class BeamSearch:
    """`given` are the tokens that the decoder begins with; an answer ends at `longest` tokens in all.

    A score that is not finite raises NotFinite: it cannot be ranked.
    """

    def __init__(
        self, sampling: Sampling, given: tuple[int, ...], longest: int, vocabulary: Vocabulary
    ) -> None:
        assert 0 < len(given) < longest
        self._sampling = sampling
        self._given = self._length = len(given)
        self._longest = longest
        self._eos = np.array([] if sampling.ignore_eos else sorted(vocabulary.eos), np.int64)
        self._processors = Processors(sampling, len(given), longest, vocabulary)
        self._beams = sampling.num_beams
        self._tokens = np.zeros((self._beams, longest), np.int64)
        self._tokens[:, : len(given)] = given
        self._scores = np.full(self._beams, NOTHING)
        self._scores[0] = 0  # at first all rows are equal, and one is enough
        self._finished: list[Hypothesis] = []
        self.done = False

    @property
    def generated(self) -> int:
        """How many tokens each running beam has after the given ones."""
        return self._length - self._given

    @property
    def best(self) -> Hypothesis | None:
        """None when no answer was possible."""
        return self._finished[0] if self._finished else None

    def advance(self, logits: Floats) -> tuple[Branch, ...]:
        """One step from the logits (beams, vocab), which are edited in place, or (1, vocab) for equal rows.

        Returns a branch for each row; they mean nothing once the search is done.
        """
        assert not self.done
        # Enough candidates that `num_beams` remain when some of them end.
        parents, tokens, totals = _best(self._score(logits), max(2, 1 + len(self._eos)) * self._beams)
        self._length += 1
        ends = np.isin(tokens, self._eos) | (self._length >= self._longest)
        self._finish(parents, tokens, totals, ends)
        totals = totals + ends * NOTHING
        running = _placed(parents, np.argsort(-totals, kind="stable")[: self._beams])
        self._tokens = self._tokens[parents[running]]
        self._tokens[:, self._length - 1] = tokens[running]
        self._scores = totals[running]
        self.done = bool(ends.all()) or not self._can_improve()
        return tuple(map(Branch, parents[running].tolist(), tokens[running].tolist()))

    def _score(self, logits: Floats) -> Floats:
        """The log-probabilities of all continuations, processed, with those of their rows."""
        peaks = logits.max(axis=1, keepdims=True)
        if not np.isfinite(peaks).all():
            raise NotFinite
        logits -= peaks
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        scores = logits if len(logits) == self._beams else np.repeat(logits, self._beams, axis=0)
        for row, tokens in zip(scores, self._tokens[:, : self._length], strict=True):
            self._processors.apply(row, tokens)
        scores += self._scores[:, None]
        return scores

    def _finish(self, parents: Ids, tokens: Ids, totals: Floats, ends: NDArray[np.bool_]) -> None:
        """Answers that ended among the best of this step join the best so far."""
        scores = totals / np.float32(self.generated**self._sampling.length_penalty)
        for place in np.flatnonzero(ends[: self._beams]).tolist():
            answer = self._tokens[parents[place], self._given : self._length - 1].tolist()
            self._finished.append(Hypothesis((*answer, int(tokens[place])), float(scores[place])))
        self._finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self._finished[self._beams :]

    def _can_improve(self) -> bool:
        """Whether a running beam may still beat a finished one; a guess, as transformers makes it."""
        s = self._sampling
        full = len(self._finished) == self._beams
        if full and s.early_stopping is EarlyStoppingChoice.TRUE:
            return False
        distant = s.early_stopping is EarlyStoppingChoice.NEVER and s.length_penalty > 0
        length = (self._longest if distant else self._length) - self._given
        reachable = self._scores.max() / np.float32(length**s.length_penalty)
        return bool(reachable > (self._finished[-1].score if full else NOTHING))


def _best(scores: Floats, count: int) -> tuple[Ids, Ids, Floats]:
    """Row, token and score of the best continuations of all rows, best first."""
    flat = scores.reshape(-1)
    count = min(count, len(flat))
    threshold = _threshold(flat, count)
    possible = np.flatnonzero(flat >= threshold if threshold > -np.inf else flat > -np.inf)
    # Impossible ones fill up, as few as are needed: where a token is forced, nearly all of them are.
    candidates = np.append(possible, np.flatnonzero(flat == -np.inf)[: max(0, count - len(possible))])
    best = candidates[np.lexsort((candidates, -flat[candidates]))[:count]]
    parents, tokens = np.divmod(best, scores.shape[1])
    return parents, tokens, flat[best]


def _threshold(flat: Floats, count: int) -> np.float32:
    """No more than the score that is `count`-th best: the `count`-th best of the peaks of as many parts.

    Both passes run at memory speed, five times as fast as a partition of 200,000 scores.
    """
    parts = max(_PARTS, count)
    if len(flat) < 2 * parts:
        return np.float32(-np.inf)
    peaks = flat[: len(flat) // parts * parts].reshape(parts, -1).max(axis=1)
    return np.float32(np.partition(peaks, parts - count)[parts - count])


def _placed(parents: Ids, running: Ids) -> list[int]:
    """The running continuations by row: the best one of a row keeps its place, others fill those left."""
    rows: list[int | None] = [None] * len(running)
    others = []
    for place in running.tolist():
        if rows[parents[place]] is None:
            rows[parents[place]] = place
        else:
            others.append(place)
    return [place if place is not None else others.pop(0) for place in rows]
