"""What a checkpoint or an engine lost: perplexity, divergence and agreement, on passages of text.

Two models may cut a text into other tokens, as after a vocabulary was pruned. So losses are summed between
the places where both have a boundary, perplexity is per token of the first model, and distributions are
compared at those places, over the tokens that both have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from build.architecture import describe
from build.checkpoint import Checkpoint
from build.quantise import Floats, Ids
from build.reference import decoder
from build.token_table import load_tokenizer, token_bytes

Doubles = NDArray[np.float64]
# Positions whose logits are held at a time: 64 of Gemma's are 67 MB.
_PIECE = 64


class Vocabulary:
    """A tokenizer, and how many bytes of text each of its tokens stands for."""

    def __init__(self, tokenizer_json: bytes, size: int) -> None:
        self._json, self.size = tokenizer_json, size

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = load_tokenizer(self._json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(each) for each in token_bytes(self._json, self.size)], np.int64)

    @cached_property
    def pieces(self) -> dict[str, int]:
        """The id of each token by its text in the tokenizer's own spelling."""
        found: dict[str, int] = self.tokenizer.get_vocab(with_added_tokens=True)
        return {piece: number for piece, number in found.items() if number < self.size}

    def encode(self, text: str) -> list[int]:
        """As a prompt is served, with the tokens that the model puts around a text."""
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids


@dataclass(frozen=True)
class Reading:
    """Ids of a passage, and the logits [count, vocab] after the tokens at so many positions."""

    ids: Sequence[int]
    logits: Callable[[Ids], Floats]


class Reader(Protocol):
    """A model that can be compared: a checkpoint under the reference, or an engine."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    def read(self, passages: Sequence[Sequence[int]]) -> Iterator[Reading]:
        """In the order of the passages; the logits of one are valid until the next is asked for."""


class ReferenceReader:
    """A decoder's checkpoint in fp32; `advance` is called after each layer."""

    def __init__(self, checkpoint: Checkpoint, advance: Callable[[], None] = lambda: None) -> None:
        self._checkpoint, self._advance = checkpoint, advance
        self._architecture = describe(checkpoint.config)
        self.vocabulary = Vocabulary(checkpoint.tokenizer.json, self._architecture.vocab_size)

    def read(self, passages: Sequence[Sequence[int]]) -> Iterator[Reading]:
        """Shorter passages are filled at the end, which no token before sees."""
        longest = max(map(len, passages))
        ids: Ids = np.zeros((len(passages), longest), np.int64)
        for row, passage in zip(ids, passages, strict=True):
            row[: len(passage)] = passage
        hidden = decoder.final_hidden(self._checkpoint, self._architecture, ids, self._advance)
        head = decoder.head_weight(self._checkpoint, self._architecture)
        for passage, states in zip(passages, hidden, strict=True):
            yield Reading(passage, _times(states, head))


def _times(states: Floats, head: Floats) -> Callable[[Ids], Floats]:
    return lambda positions: states[positions] @ head.T


def passages(vocabulary: Vocabulary, text: str, count: int, tokens: int) -> list[str]:
    """So many pieces of a text, evenly spread over it, each from the start of a line and of about `tokens`;
    fewer where the text is short.
    """
    width = max(1, len(text) // count)
    found = []
    for start in range(0, min(len(text), width * count), width):
        begin = text.find("\n", start) + 1 if start else 0
        piece = text[begin : start + width]
        ends = [end for _, end in vocabulary.tokenizer.encode(piece).offsets[:tokens]]
        if ends:
            found.append(piece[: max(ends)])
    return found


@dataclass(frozen=True)
class Loss:
    """How a model reads a text beside another, its parent or the root.

    `ratio` is its perplexity over the other's, `error` the standard error of that, paired by place; `kl` the
    mean divergence from the other's distribution in nats, with its median and its quantile of 99 %;
    `agreement` the share of places where both prefer the same token; `outside` the probability that the other
    gives to tokens that this model has not.
    """

    tokens: int
    perplexity: float
    ratio: float
    error: float
    kl: float
    kl_median: float
    kl_p99: float
    agreement: float
    outside: float

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 5) for name, value in asdict(self).items()}


def compare(other: Reader, model: Reader, texts: Sequence[str]) -> Loss:
    """`model` against `other` on the same texts."""
    places = [_Places(other, model, text) for text in texts]
    ours = model.read([place.ours for place in places])
    theirs = other.read([place.theirs for place in places])
    parts = [place.compared(b, a) for place, b, a in zip(places, theirs, ours, strict=True)]
    differences = np.concatenate([part.ours - part.theirs for part in parts])
    tokens = sum(part.tokens for part in parts)
    change = differences.sum() / tokens
    spread = differences.std() * math.sqrt(len(differences)) / tokens
    kl = np.concatenate([part.kl for part in parts])
    return Loss(
        tokens=tokens,
        perplexity=math.exp(sum(float(part.ours.sum()) for part in parts) / tokens),
        ratio=math.exp(change),
        error=math.exp(change) * float(spread),
        kl=float(kl.mean()),
        kl_median=float(np.median(kl)),
        kl_p99=float(np.quantile(kl, 0.99)),
        agreement=float(np.concatenate([part.agrees for part in parts]).mean()),
        outside=float(np.concatenate([part.outside for part in parts]).mean()),
    )


@dataclass(frozen=True)
class _Part:
    """Losses between places, and the comparison at each."""

    tokens: int
    ours: Doubles
    theirs: Doubles
    kl: Doubles
    agrees: NDArray[np.bool_]
    outside: Doubles


class _Places:
    """Where both models have a boundary in a text: the index of the token that ends there, in each."""

    def __init__(self, other: Reader, model: Reader, text: str) -> None:
        self.theirs, self.ours = other.vocabulary.encode(text), model.vocabulary.encode(text)
        self._shared = _shared(other.vocabulary, model.vocabulary)
        ends = [_ends(other.vocabulary, self.theirs), _ends(model.vocabulary, self.ours)]
        common = sorted(ends[0].keys() & ends[1].keys())
        self._first, self._second = (np.array([end[place] for place in common]) for end in ends)

    def compared(self, theirs: Reading, ours: Reading) -> _Part:
        first, second = self._first, self._second
        at = [_distances(theirs, ours, a, b, self._shared) for a, b in _pieces(first, second)]
        kl, agrees, outside = (np.concatenate(column) for column in zip(*at, strict=True))
        return _Part(
            tokens=int(first[-1] - first[0]),
            ours=np.add.reduceat(_losses(ours, second[0], second[-1]), second[:-1] - second[0]),
            theirs=np.add.reduceat(_losses(theirs, first[0], first[-1]), first[:-1] - first[0]),
            kl=kl,
            agrees=agrees,
            outside=outside,
        )


def _ends(vocabulary: Vocabulary, ids: Sequence[int]) -> dict[int, int]:
    """Bytes of text before a boundary, and the last token that ends there."""
    return {int(end): index for index, end in enumerate(np.cumsum(vocabulary.lengths[np.asarray(ids)]))}


def _shared(other: Vocabulary, model: Vocabulary) -> tuple[Ids, Ids] | None:
    """The ids in each of the tokens that both have; None where all are the same."""
    if other.pieces == model.pieces:
        return None
    both = [piece for piece in other.pieces if piece in model.pieces]
    theirs, ours = ([each.pieces[piece] for piece in both] for each in (other, model))
    return np.array(theirs, np.int64), np.array(ours, np.int64)


def _pieces(*columns: Ids) -> Iterator[tuple[Ids, ...]]:
    for start in range(0, len(columns[0]), _PIECE):
        yield tuple(column[start : start + _PIECE] for column in columns)


def _losses(reading: Reading, start: int, stop: int) -> Doubles:
    """Negative log-likelihoods in nats of the tokens after those at `start` to `stop`."""
    labels = np.asarray(reading.ids)[start + 1 : stop + 1]
    found = []
    for positions, following in _pieces(np.arange(start, stop), labels):
        logs = log_softmax(reading.logits(positions))
        found.append(-logs[np.arange(len(following)), following])
    return np.concatenate(found)


def _distances(
    theirs: Reading, ours: Reading, first: Ids, second: Ids, shared: tuple[Ids, Ids] | None
) -> tuple[Doubles, NDArray[np.bool_], Doubles]:
    """Divergence, agreement, and the probability outside of what is shared, at each pair of positions."""
    a, b = log_softmax(theirs.logits(first)), log_softmax(ours.logits(second))
    if shared is None:
        kl = (np.exp(a) * (a - b)).sum(axis=-1)
        return kl, a.argmax(axis=-1) == b.argmax(axis=-1), np.zeros(len(a))
    best = a.argmax(axis=-1)
    a, b = a[:, shared[0]], b[:, shared[1]]
    inside = np.exp(a).sum(axis=-1)
    b = b - np.log(np.exp(b).sum(axis=-1, keepdims=True))
    a = a - np.log(inside)[:, None]
    kl = (np.exp(a) * (a - b)).sum(axis=-1)
    return kl, best == shared[0][b.argmax(axis=-1)], 1 - inside


def log_softmax(logits: Floats) -> Doubles:
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
    return values
