"""Logits to tokens: temperature, top-k, top-p, min-p, seeds and log-probabilities, for all rows at once.

The order of the steps is that of transformers: the request's processors, temperature, top-k, top-p, min-p. A
row's token depends on its own logits and its own random numbers alone, so an answer does not depend on the
batch it runs in. Log-probabilities are the model's own, before any of these steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.core.errors import InvalidArgument
from engine.core.request import Sampling
from engine.core.tokens import TokenTable, Vocabulary
from engine.sampling.processors import Processors

Floats = NDArray[np.float32]
CANDIDATES = 256  # nearly always enough for top-p; a row that needs more is sorted whole


@dataclass(frozen=True, slots=True)
class Alternative:
    token: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The token of a row, and with `num_logprobs` its log-probability and the best alternatives'."""

    token: int
    logprob: float | None = None
    top: tuple[Alternative, ...] = ()


class TokenChooser:
    """The sampling state of one sequence. `choose` reads and edits the rows of logits in place.

    `given` are the tokens that the decoder begins with; the answer ends at `longest` tokens in all.
    """

    def __init__(
        self, sampling: Sampling, given: Sequence[int], longest: int, vocabulary: Vocabulary
    ) -> None:
        self.sampling = sampling
        self._random = None if sampling.greedy else np.random.default_rng(sampling.seed)
        self._processors = Processors(sampling, len(given), longest, vocabulary)
        self._quiet = sampling.greedy and sampling.num_logprobs is None and not self._processors.constant
        self._quiet_from, self._quiet_until = self._processors.quiet_span
        self._generated = 0
        # The arg max does not depend on earlier tokens.
        self._account: NDArray[np.int64] | None = None
        self._given = len(given)
        if not self._quiet or self._processors.quiet_span != (0, math.inf):
            self._account = np.empty(longest, np.int64)
            self._account[: len(given)] = given

    @property
    def plain(self) -> bool:
        """Greedy, with nothing to edit and nothing to report: the arg max is the answer."""
        return self._quiet and self._quiet_from <= self._generated < self._quiet_until

    def uniform(self) -> float:
        """The row's next random number in [0, 1)."""
        assert self._random is not None
        return float(self._random.random())

    def note(self, token: int) -> None:
        """Record the token that was chosen."""
        if self._account is not None:
            self._account[self._given + self._generated] = token
        self._generated += 1

    def edit(self, row: Floats) -> None:
        """Apply all changes of the request to its logits."""
        if self._account is not None:
            self._processors.apply(row, self._account[: self._given + self._generated])


def check_prompt(prompt: Iterable[int], vocab: int) -> None:
    """Raises InvalidArgument for the first token id that the model does not have."""
    _check("input_ids", prompt, vocab)


def check_ids(sampling: Sampling, vocab: int) -> None:
    """As `check_prompt`, for the token ids in the request's options."""
    _check("logit_bias", (token for token, _ in sampling.logit_bias), vocab)
    _check("suppress_tokens", sampling.suppress_tokens, vocab)
    for field in ("forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id"):
        token = getattr(sampling, field)
        _check(field, () if token is None else (token,), vocab)


def _check(field: str, ids: Iterable[int], vocab: int) -> None:
    # An id that the model does not have would fail a step, and the others in it.
    wrong = next((token for token in ids if not 0 <= token < vocab), None)
    if wrong is not None:
        raise InvalidArgument(field, f"{wrong}, must be a token id in [0, {vocab - 1}]")


def choose(logits: Floats, choosers: Sequence[TokenChooser]) -> list[Choice | None]:
    """One token for each row of `logits` (rows, vocab), which is edited in place.

    A row that is not finite gets None, since none of its tokens would be meaningful; the others are
    unaffected.
    """
    tokens = logits.argmax(axis=1)
    finite = np.isfinite(logits[np.arange(len(tokens)), tokens])
    if finite.all():
        return [*_choose(logits, tokens, choosers)]
    rows = np.flatnonzero(finite).tolist()
    choices = iter(_choose(logits[rows], tokens[rows], [choosers[row] for row in rows]))
    return [next(choices) if whole else None for whole in finite.tolist()]


def _choose(logits: Floats, tokens: NDArray[np.int64], choosers: Sequence[TokenChooser]) -> list[Choice]:
    """`tokens` come in as the arg max of the rows; the chosen tokens are written to them."""
    reports = {
        i: _normalised(logits[i]) for i, c in enumerate(choosers) if c.sampling.num_logprobs is not None
    }
    edited = [i for i, chooser in enumerate(choosers) if not chooser.plain]
    for i in edited:
        choosers[i].edit(logits[i])
        tokens[i] = logits[i].argmax()
    # If every token is forbidden there is nothing to draw: the first one is taken, as in transformers.
    drawn = [i for i in edited if not choosers[i].sampling.greedy and logits[i, tokens[i]] > -np.inf]
    if drawn:
        tokens[drawn] = _draw(logits[drawn], [choosers[i] for i in drawn])
    for chooser, token in zip(choosers, tokens.tolist(), strict=True):
        chooser.note(token)
    return [_choice(token, reports.get(i), choosers[i]) for i, token in enumerate(tokens.tolist())]


def _draw(logits: Floats, choosers: Sequence[TokenChooser]) -> NDArray[np.int64]:
    """Tokens drawn from the filtered distributions of the rows, by inverse CDF."""
    uniforms = np.array([chooser.uniform() for chooser in choosers])
    samplings = [chooser.sampling for chooser in choosers]
    weights = _weights(logits, np.array([s.temperature for s in samplings], np.float32))
    tokens = np.empty(len(choosers), np.int64)
    open_rows = [i for i, s in enumerate(samplings) if s.top_k == 0 and s.top_p == 1 and s.min_p == 0]
    for i in open_rows:
        tokens[i] = _inverse_cdf(weights[i], uniforms[i])
    for i in sorted(set(range(len(choosers))) - set(open_rows)):
        tokens[i] = _draw_filtered(weights[i], samplings[i], uniforms[i])
    return tokens


def _weights(logits: Floats, temperatures: Floats) -> Floats:
    """Unnormalised probabilities (rows, vocab), 1 at the peak of each row."""
    # A tiny temperature must neither overflow nor become zero, so the peak is subtracted first.
    scaled: Floats = logits - logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        scaled /= np.maximum(temperatures, np.finfo(np.float32).tiny)[:, None]
    return np.exp(scaled, out=scaled)


def _draw_filtered(weights: Floats, sampling: Sampling, uniform: float) -> int:
    width = min(max(CANDIDATES, sampling.top_k), len(weights))
    kept = _filter(weights, sampling, width)
    if kept is None:
        kept = _filter(weights, sampling, len(weights))
    assert kept is not None
    return int(kept[_inverse_cdf(weights[kept], uniform)])


def _filter(weights: Floats, sampling: Sampling, width: int) -> NDArray[np.int64] | None:
    """The ids that top-k, top-p and min-p keep, best first; None when `width` candidates cannot tell."""
    best = np.argpartition(weights, len(weights) - width)[len(weights) - width :]
    best = best[np.lexsort((best, -weights[best]))]
    limit = sampling.top_k or len(weights)
    top = weights[best[:limit]].astype(np.float64)
    total = top.sum() if limit <= width else float(weights.sum(dtype=np.float64))
    mass = np.cumsum(top)
    # A token stays while the mass before it is short of top_p, so the first always does.
    keep = (mass - top < sampling.top_p * total) & (top >= sampling.min_p * top[0])
    if keep.all() and len(top) < limit and width < len(weights):
        return None
    kept: NDArray[np.int64] = best[:limit][keep]
    return kept


def _inverse_cdf(weights: Floats, uniform: float) -> int:
    mass = np.cumsum(weights, dtype=np.float64)
    return min(int(np.searchsorted(mass, uniform * mass[-1], side="right")), len(mass) - 1)


def _normalised(row: Floats) -> NDArray[Any]:
    """Log-probabilities of one row (vocab)."""
    shifted = row.astype(np.float64) - float(row.max())
    shifted -= np.log(np.exp(shifted).sum())
    return shifted


def _choice(token: int, logprobs: NDArray[Any] | None, chooser: TokenChooser) -> Choice:
    if logprobs is None:
        return Choice(token)
    count = min(chooser.sampling.num_logprobs or 0, len(logprobs))
    best = np.argpartition(logprobs, -count)[-count:] if count else np.array([], np.int64)
    best = best[np.lexsort((best, -logprobs[best]))]
    top = tuple(Alternative(int(i), float(logprobs[i])) for i in best)
    return Choice(token, float(logprobs[token]), top)


def logprob_entry(choice: Choice, table: TokenTable) -> dict[str, object]:
    """The log-probability entry of one token, as clients read it."""
    assert choice.logprob is not None
    top = [_entry(a.token, a.logprob, table) for a in choice.top]
    return _entry(choice.token, choice.logprob, table) | {"top": top}


def _entry(token: int, logprob: float, table: TokenTable) -> dict[str, object]:
    data = table[token]
    # JSON has no infinity: a token that cannot occur gets the smallest float32.
    logprob = max(logprob, -3.4e38)
    return {
        "id": token,
        "token": data.decode("utf-8", "replace"),
        "bytes": list(data),
        "logprob": logprob,
    }
