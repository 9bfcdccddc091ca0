"""What a request changes in the scores of its next token, in the order of transformers' logits processors:
biases, penalties, repeated n-grams, bad words, suppressed tokens, min_tokens, forced tokens.

The scores are logits where one token is chosen at a time, and log-probabilities in a beam search. `tokens`
are all that the decoder has seen: prompt and answer, or with an encoder its start token and the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.core.request import Sampling
from engine.core.tokens import TokenTable, Vocabulary

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


class Processors:
    """The processors of one request, whose decoder begins with `given` tokens and has at most `longest`."""

    def __init__(self, sampling: Sampling, given: int, longest: int, vocabulary: Vocabulary) -> None:
        self._sampling = sampling
        self._given = given
        self._longest = longest
        self._eos = _ids(token for token in sorted(vocabulary.eos) if token < vocabulary.size)
        self._suppressed = _ids(sampling.suppress_tokens)
        self._biased = _ids(token for token, _ in sampling.logit_bias)
        self._bias = np.array([bias for _, bias in sampling.logit_bias], np.float32)
        # transformers forces this token only after a single given token, such as a decoder's start.
        self._first = sampling.forced_bos_token_id if given == 1 else None
        self._last = sampling.forced_eos_token_id
        self._bad = BadWords([word.encode() for word in sampling.bad_words], vocabulary.table)

    @property
    def constant(self) -> bool:
        """Whether they change something at every step."""
        s = self._sampling
        return bool(
            s.repetition_penalty != 1
            or s.frequency_penalty
            or s.presence_penalty
            or s.no_repeat_ngram_size
            or s.bad_words
            or s.logit_bias
            or s.suppress_tokens
        )

    @property
    def quiet_span(self) -> tuple[int, float]:
        """The range of numbers of new tokens in which no token is forced and no end is suppressed."""
        begin = max(self._sampling.min_tokens, int(self._first is not None))
        return begin, math.inf if self._last is None else self._longest - self._given - 1

    def apply(self, scores: Floats, tokens: Ids) -> None:
        """Edits one row of scores (vocab) in place."""
        scores[self._biased] += self._bias
        self._penalise(scores, tokens)
        if size := self._sampling.no_repeat_ngram_size:
            scores[repeating(tokens, size)] = -np.inf
        if self._sampling.bad_words:
            scores[self._bad.after(tokens[self._given :].tolist())] = -np.inf
        scores[self._suppressed] = -np.inf
        if len(tokens) - self._given < self._sampling.min_tokens:
            scores[self._eos] = -np.inf
        if self._first is not None and len(tokens) == self._given:
            _force(scores, self._first)
        if self._last is not None and len(tokens) == self._longest - 1:
            _force(scores, self._last)

    def _penalise(self, scores: Floats, tokens: Ids) -> None:
        """Repetition (Keskar et al. 2019) over all tokens; frequency, presence (OpenAI) over the answer."""
        s = self._sampling
        if s.repetition_penalty != 1:
            seen = scores[tokens]
            scores[tokens] = np.where(seen < 0, seen * s.repetition_penalty, seen / s.repetition_penalty)
        if s.frequency_penalty or s.presence_penalty:
            ids, counts = np.unique(tokens[self._given :], return_counts=True)
            scores[ids] -= (s.frequency_penalty * counts + s.presence_penalty).astype(np.float32)


class BadWords:
    """The tokens that would complete one of some texts, which may begin and end in the middle of tokens.

    Nothing is kept from one step to the next, so a search may branch and a draft may be dropped.
    """

    def __init__(self, words: Sequence[bytes], table: TokenTable) -> None:
        self._words = words
        self._table = table
        self._always = {token for word in words for token in table.containing(word)}
        self._longest = max(map(len, words), default=1) - 1

    def after(self, answer: Sequence[int]) -> list[int]:
        """Those behind the tokens of an answer."""
        end = self._end(answer)
        found = set(self._always)
        for word in self._words:
            for begun in range(1, min(len(word), len(end) + 1)):
                if end.endswith(word[:begun]):
                    found.update(self._table.beginning_with(word[begun:]))
        return sorted(found)

    def _end(self, answer: Sequence[int]) -> bytes:
        """As many of the last bytes as may belong to a text that is not complete, or some more."""
        end = b""
        for token in reversed(answer):
            if len(end) >= self._longest:
                break
            end = self._table[token] + end
        return end


def repeating(tokens: Ids, size: int) -> Ids:
    """The tokens that would complete an n-gram of this size which the tokens have already."""
    count = len(tokens) - size + 1
    if count < 1:
        return tokens[:0]
    alike = np.ones(count, bool)
    for offset, token in enumerate(tokens[count:].tolist()):
        alike &= tokens[offset : offset + count] == token
    found: Ids = tokens[size - 1 :][alike]
    return found


def _force(scores: Floats, token: int) -> None:
    scores[:] = -np.inf
    scores[token] = 0


def _ids(tokens: Iterable[int]) -> Ids:
    return np.array(list(tokens), np.int64)
