"""Scores an engine against the reference on the same English text, before anything is published.

An engine is taught: each step reads the next token of the text, not the engine's own choice, so that one
early difference does not decide the rest. A Session runs the engine, whatever its dialect and processor.
"""

from __future__ import annotations

import math
import pydoc_data.topics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from build.architecture import Model
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.errors import BuildError
from build.generation import decoder_start
from build.quantise import Floats, Ids
from build.recipe import Limits
from build.reference import decoder, encoder_decoder
from build.token_table import load_tokenizer

DEFAULT_TOKENS = 6 * 512
_WINDOW = 512  # tokens; of an encoder-decoder half as many, for source and answer each
_CHARACTERS = 16  # a token, at the very most: English takes four
_PIECE = 64  # positions whose logits are copied at a time: a whole window is half a gigabyte for Gemma
_BLOCK = 16  # steps whose logits are held and compared at a time


class Session(Protocol):
    """Runs an engine's graphs over caches of several rows, as a server does."""

    @property
    def lengths(self) -> NDArray[np.integer[Any]]:
        """How many tokens each row has."""

    def reset(self) -> None:
        """Forgets the tokens of all rows."""

    def encode(self, row: int, ids: Ids) -> None:
        """A new source for one row of an encoder-decoder, whose tokens are forgotten."""

    def prefill(self, row: int, ids: Ids) -> Floats:
        """Logits [1 or seq, vocab] after appending the ids to one row."""

    def decode(self, ids: Ids) -> Floats:
        """Logits [n, vocab] after appending one id to each of the first n rows."""


@dataclass(frozen=True)
class Text:
    """Ids [windows, positions] that an engine reads as `inputs`, and those that follow them, the `labels`.

    `sources` are for an encoder, None for a decoder alone. `labels` may lack the last position.
    """

    sources: Ids | None
    inputs: Ids
    labels: Ids


@dataclass(frozen=True)
class Lesson:
    """A text with the reference's logits for it: hidden [windows, positions, hidden] @ head.T + bias."""

    text: Text
    hidden: Floats
    head: Floats
    bias: Floats | None

    def expected(self, windows: int | list[int], positions: slice) -> Floats:
        """The reference's logits: [positions, vocab], or [windows, positions, vocab] for several windows."""
        logits: Floats = self.hidden[windows, positions] @ self.head.T
        if self.bias is not None:
            logits += self.bias
        return logits


@dataclass(frozen=True)
class Quality:
    """How an engine scored on so many `tokens`.

    `max_logit_error` is absolute, `greedy_agreement` the share of positions with equal argmax.
    """

    tokens: int
    reference_perplexity: float
    perplexity: float
    greedy_agreement: float
    max_logit_error: float

    def rounded(self) -> dict[str, float]:
        """For the manifest: only digits that runs on different processors share."""
        digits = {"max_logit_error": 4, "greedy_agreement": 4}
        return {key: round(value, digits.get(key, 3)) for key, value in asdict(self).items()}


def english(
    checkpoint: Checkpoint,
    model: Model,
    tokens: int,
    capacity: int | None = None,
    source_capacity: int | None = None,
) -> Text:
    """About `tokens` tokens of English; an encoder-decoder answers a passage with that passage.

    No window is longer than the model's positions or, where they are given, the capacities of its caches.
    """
    tokenizer = checkpoint.tokenizer
    if isinstance(model, Architecture):
        ids = windows(tokenizer.json, min(model.max_positions, capacity or model.max_positions), tokens)
        return Text(None, ids, ids[:, 1:])
    length = min(_WINDOW // 2, model.encoder.max_positions, model.decoder.max_positions, tokens)
    count = max(1, tokens // length)
    sources = passage_ids(tokenizer.json, count, length)
    labels = passage_ids(tokenizer.target or tokenizer.json, count, length)
    starts = np.full((len(labels), 1), decoder_start(checkpoint))
    inputs = np.concatenate([starts, labels[:, :-1]], axis=1)
    return Text(sources[:, :source_capacity], inputs[:, :capacity], labels[:, :capacity])


def windows(tokenizer_json: bytes, max_positions: int, tokens: int) -> Ids:
    """Ids [windows, positions] spread evenly over Python's own documentation: about `tokens` of them."""
    length = min(_WINDOW, max_positions, tokens)
    return passage_ids(tokenizer_json, max(1, tokens // length), length)


def passage_ids(tokenizer_json: bytes, count: int, length: int) -> Ids:
    """Ids [passages, length] of so many passages of English, or as many as there are.

    Each is a prompt as in serving, with its special tokens; without them Gemma's perplexity triples.
    """
    tokenizer = load_tokenizer(tokenizer_json)
    tokenizer.enable_truncation(length)
    tokenizer.no_padding()
    passages = _passages(count, _CHARACTERS * length)
    encoded = [tokenizer.encode(passage).ids for passage in passages]
    if min(map(len, encoded)) < length:
        raise BuildError(f"verify: {_CHARACTERS} characters a token do not fill {length} tokens")
    return np.array(encoded, np.int64)


def prose() -> str:
    """English that every CPython ships, and that no pass reads: its own documentation by topics."""
    topics = pydoc_data.topics.topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def _passages(count: int, characters: int) -> list[str]:
    """So many pieces of English prose, each from the start of a line."""
    text = prose()
    most = max(1, len(text) // characters)
    count = min(count, most)
    starts = [text.find("\n", index * (len(text) // count)) + 1 for index in range(count)]
    return [text[start : start + characters] for start in starts]


def learn(checkpoint: Checkpoint, model: Model, text: Text, advance: Callable[[], None]) -> Lesson:
    """Runs the reference; `advance` is called after each layer of each stack."""
    if isinstance(model, Architecture):
        hidden = decoder.final_hidden(checkpoint, model, text.inputs, advance)
        return Lesson(text, hidden, decoder.head_weight(checkpoint, model), None)
    assert text.sources is not None
    hidden = encoder_decoder.final_hidden(checkpoint, model, text.sources, text.inputs, advance)
    return Lesson(text, hidden, *encoder_decoder.head_weight(checkpoint, model))


def read(session: Session, lesson: Lesson, advance: Callable[[], None]) -> Quality:
    """Scores a graph that gives logits for all positions, a window at once; advances after each."""
    text, scores = lesson.text, []
    for window, inputs in enumerate(text.inputs):
        session.reset()
        if text.sources is not None:
            session.encode(0, text.sources[window])
        logits = session.prefill(0, inputs)
        scores.append(compare(lesson.expected(window, slice(None)), logits, text.labels[window]))
        advance()
    return joint(scores)


def step(session: Session, lesson: Lesson, advance: Callable[[], None]) -> Quality:
    """Scores the served graph a token at a time, with as many windows together as there are rows.

    `advance` is called `steps` times.
    """
    text, scores = lesson.text, []
    for windows in _batches(text, len(session.lengths)):
        session.reset()
        for row, window in enumerate(windows):
            if text.sources is not None:
                session.encode(row, text.sources[window])
        for block in _blocks(text):
            logits = np.stack([session.decode(ids) for ids in text.inputs[windows, block].T], axis=1)
            expected = lesson.expected(windows, block)
            vocabulary = logits.shape[-1]
            labels = text.labels[windows, block].reshape(-1)
            scores.append(compare(expected.reshape(-1, vocabulary), logits.reshape(-1, vocabulary), labels))
            advance()
    return joint(scores)


def steps(text: Text, rows: int) -> int:
    """How often `step` advances with a session of so many rows."""
    return len(_batches(text, rows)) * len(_blocks(text))


def _batches(text: Text, rows: int) -> list[list[int]]:
    count = len(text.inputs)
    return [list(range(start, min(start + rows, count))) for start in range(0, count, rows)]


def _blocks(text: Text) -> list[slice]:
    """The positions that have a label, in blocks."""
    length = text.labels.shape[1]
    return [slice(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]


def read_last(session: Session, text: Text) -> Floats:
    """Logits [vocab] at the end of the first window, of a graph that scores every position."""
    _begin(session, text)
    last: Floats = session.prefill(0, text.inputs[0])[-1]
    return last


def step_last(session: Session, text: Text) -> Floats:
    """Logits [vocab] at the end of the first window, which is read a token at a time."""
    _begin(session, text)
    for ids in text.inputs[:1].T:
        logits = session.decode(ids)
    last: Floats = logits[0]
    return last


def require_same(
    expected: Floats, session: Session, text: Text, chunk: int, tolerance: float, name: str
) -> None:
    """BuildError unless the last row, fed the first window in chunks and then one token, gives `expected`.

    The rows before it decode another token in the last step. `tolerance` is a share of the largest
    logit: products of one row and of many round differently, by far less than a wrong cache would show.
    """
    row, inputs = len(session.lengths) - 1, text.inputs[0]
    _begin(session, text)
    for start in range(0, len(inputs) - 1, chunk):
        session.prefill(row, inputs[:-1][start : start + chunk])
    logits = session.decode(np.append(np.repeat(inputs[:1], row), inputs[-1]))[row]
    error = float(np.abs(logits - expected).max())
    if not error <= tolerance * float(np.abs(expected).max()):
        raise BuildError(f"verify: {name} differs by {error:.3g} when it decodes over a past")


def _begin(session: Session, text: Text) -> None:
    """Gives every row the source of the first window."""
    session.reset()
    for row in range(len(session.lengths)):
        if text.sources is not None:
            session.encode(row, text.sources[0])


@dataclass(frozen=True)
class Score:
    """Mean losses over `tokens`, the share of equal argmax, the largest difference of a logit."""

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
    """Rows of [tokens, vocab] that are copied at a time."""
    return [slice(start, start + _PIECE) for start in range(0, count, _PIECE)]


def joint(scores: Sequence[Score]) -> Quality:
    """The quality over all tokens together."""
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
