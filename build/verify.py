"""Scores an engine against the reference on the same English text, before anything is published."""

from __future__ import annotations

import math
import pydoc_data.topics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.dialects.onnxruntime.session import Session
from build.errors import BuildError
from build.quantise import Floats, Ids
from build.recipe import Limits
from build.reference import decoder as reference
from build.token_table import load_tokenizer

DEFAULT_TOKENS = 6 * 512
_WINDOW = 512
_CHARACTERS = 16  # a token, at the very most: English takes four
# Products of one row and of many round differently, by far less than a wrong cache would show.
_SAME_GRAPH = 0.05
_PIECE = 64


@dataclass(frozen=True)
class Quality:
    """`tokens` scored; `max_logit_error` is absolute; `greedy_agreement` the share of equal argmax."""

    tokens: int
    reference_perplexity: float
    perplexity: float
    greedy_agreement: float
    max_logit_error: float

    def rounded(self) -> dict[str, float]:
        """For the manifest: digits that two runs on different processors share."""
        digits = {"max_logit_error": 4, "greedy_agreement": 4}
        return {key: round(value, digits.get(key, 3)) for key, value in asdict(self).items()}


def windows(tokenizer_json: bytes, max_positions: int, tokens: int) -> Ids:
    """Ids [windows, positions] spread evenly over Python's own documentation: about `tokens` of them."""
    length = min(_WINDOW, max_positions, tokens)
    return passage_ids(tokenizer_json, max(1, tokens // length), length)


def passage_ids(tokenizer_json: bytes, count: int, length: int) -> Ids:
    """Ids [passages, length] of so many passages of English, or as many as there are.

    Each is a prompt as it is served: with its special tokens, without which Gemma's perplexity trebles.
    """
    tokenizer = load_tokenizer(tokenizer_json)
    tokenizer.enable_truncation(length)
    tokenizer.no_padding()
    passages = _passages(count, _CHARACTERS * length)
    encoded = [tokenizer.encode(passage).ids for passage in passages]
    if min(map(len, encoded)) < length:
        raise BuildError(f"verify: {_CHARACTERS} characters a token do not fill {length} tokens")
    return np.array(encoded, np.int64)


def _passages(count: int, characters: int) -> list[str]:
    """So many pieces of English prose, each from the start of a line."""
    topics = pydoc_data.topics.topics
    text = "\n\n".join(topics[name] for name in sorted(topics))
    most = max(1, len(text) // characters)
    count = min(count, most)
    starts = [text.find("\n", index * (len(text) // count)) + 1 for index in range(count)]
    return [text[start : start + characters] for start in starts]


def measure(
    checkpoint: Checkpoint,
    architecture: Architecture,
    graph: Path,
    ids: Ids,
    advance: Callable[[], None],
) -> Quality:
    """Runs both; `graph` must give logits for all positions. `advance` is called layers + windows times."""
    hidden = reference.final_hidden(checkpoint, architecture, ids, advance)
    head = reference.head_weight(checkpoint, architecture)
    session = Session(graph, architecture, capacity=ids.shape[1])
    scores = [
        compare(hidden[index] @ head.T, logits, ids[index, 1:])
        for index, logits in enumerate(_engine_logits(session, ids, advance))
    ]
    return joint(scores)


@dataclass(frozen=True)
class Score:
    """Of so many `tokens`: mean losses, the share of equal argmax, the largest difference of a logit."""

    tokens: int
    reference_loss: float
    loss: float
    agreement: float
    error: float


def compare(expected: Floats, actual: Floats, following: Ids) -> Score:
    """Logits [tokens, vocab] of the reference and of the engine; `following` may lack the last."""
    agreement = np.mean(expected.argmax(axis=-1) == actual.argmax(axis=-1))
    return Score(
        tokens=len(expected),
        reference_loss=_loss(expected, following),
        loss=_loss(actual, following),
        agreement=float(agreement),
        error=max(float(np.abs(expected[rows] - actual[rows]).max()) for rows in _pieces(len(expected))),
    )


def _pieces(count: int) -> list[slice]:
    """So that no more than one piece of [tokens, vocab] is copied: a whole is half a gigabyte for Gemma."""
    return [slice(start, start + _PIECE) for start in range(0, count, _PIECE)]


def joint(scores: Sequence[Score]) -> Quality:
    """That of all tokens together."""
    weights = [score.tokens for score in scores]
    means = np.average([(s.reference_loss, s.loss, s.agreement) for s in scores], axis=0, weights=weights)
    return Quality(
        tokens=sum(weights),
        reference_perplexity=math.exp(means[0]),
        perplexity=math.exp(means[1]),
        greedy_agreement=float(means[2]),
        max_logit_error=max(score.error for score in scores),
    )


def _loss(logits: Floats, following: Ids) -> float:
    """Mean negative log-likelihood of the tokens that follow."""
    losses = [_losses(logits[: len(following)][rows], following[rows]) for rows in _pieces(len(following))]
    return float(np.mean(np.concatenate(losses)))


def _losses(logits: Floats, following: Ids) -> NDArray[np.float64]:
    top = logits.max(axis=-1, keepdims=True)
    log_sums: NDArray[np.float64] = np.log(np.exp(logits - top).sum(axis=-1, dtype=np.float64)) + top[:, 0]
    losses: NDArray[np.float64] = log_sums - logits[np.arange(len(logits)), following]
    return losses


def require(quality: Quality, limits: Limits) -> None:
    """BuildError when the engine lost more than the recipe allows."""
    ratio = quality.perplexity / quality.reference_perplexity
    over = [
        (limits.logit_error is not None and not quality.max_logit_error <= limits.logit_error)
        and f"max logit error {quality.max_logit_error:.3g}, limit {limits.logit_error}",
        (limits.perplexity is not None and not ratio <= limits.perplexity)
        and f"perplexity {ratio:.4f} times the reference's, limit {limits.perplexity}",
        (limits.agreement is not None and not quality.greedy_agreement >= limits.agreement)
        and f"greedy agreement {quality.greedy_agreement:.4f}, at least {limits.agreement}",
    ]
    faults = [fault for fault in over if fault]
    if faults:
        raise BuildError(f"quality: {'; '.join(faults)}: nothing was published")


def require_same_graph(every: Path, serving: Path, architecture: Architecture, ids: Ids) -> None:
    """The graph that is served, prefilled in two chunks and one decode step, scores as the verified one."""
    expected = Session(every, architecture, len(ids)).prefill(0, ids)[-1]
    session = Session(serving, architecture, len(ids))
    half = len(ids) // 2
    for chunk in (ids[:half], ids[half:-1]):
        if len(chunk):
            session.prefill(0, chunk)
    actual = session.decode(ids[-1:])[0]
    error = float(np.abs(actual - expected).max())
    if not error <= _SAME_GRAPH * float(np.abs(expected).max()):
        raise BuildError(f"verify: {serving.name} strays by {error:.3g} when it decodes over a past")


def _engine_logits(session: Session, ids: Ids, advance: Callable[[], None]) -> Iterator[Floats]:
    for window in ids:
        session.reset()
        yield session.prefill(0, window)
        advance()
