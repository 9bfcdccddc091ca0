"""Rules of form: length, symbols, lines, repetition, boilerplate, language.

Limits are those of Gopher (Rae et al. 2021, table A1) where it has the rule; phrases of boilerplate follow
C4 (Raffel et al. 2020). Gopher reads whole web pages. Here a document may be one paragraph, so rules that
need many words or lines apply from `REPETITION_WORDS` and `MANY_LINES` on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety.filter.words import I64, IDEOGRAPHS, U64, Words

F64 = NDArray[np.float64]

REPETITION_WORDS = 50
MANY_LINES = 4
# The largest share of characters that the commonest 2-, 3- and 4-gram may have.
TOP_GRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
# The largest share of characters in n-grams that the document has had before.
REPEATED_GRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
REPEATED_LINES = 0.30
REPEATED_LINE_CHARACTERS = 0.20
SYMBOLS = 0.10
LETTERS = 0.80
BULLETS = 0.90
ELLIPSES = 0.30
WORD_LENGTH = (3.0, 10.0)
BOILERPLATE_LINES = 0.30

_IDEOGRAPH = re.compile(f"[{IDEOGRAPHS}]")
_LOREM = "lorem ipsum"
_PHRASES = re.compile(
    r"(?:enable|requires?|turn on|activate) javascript"
    r"|javascript (?:is|must be|has been) (?:enabled|disabled)"
    r"|(?:use|uses|using) (?:of )?cookies|cookies? policy|accept (?:all )?cookies"
    r"|privacy policy|terms of (?:use|service)|all rights reserved|subscribe to our newsletter"
    r"|sign up for our newsletter|click here to|add to cart"
    r"|share on (?:facebook|twitter)|powered by wordpress"
)
# Each phrase has one of these, and they are found ten times as fast.
_HINTS = (
    "javascript",
    "cookie",
    "privacy",
    "terms of",
    "reserved",
    "newsletter",
    "click",
    "cart",
    "share on",
    "wordpress",
)
_BULLET = re.compile(r"\s*(?:[-*•‣▪–]\s|\d{1,3}[.)]\s)")


@dataclass(frozen=True, slots=True)
class Form:
    """What the rules of form compare: words, lines, and shares of the characters in words."""

    minimum_words: int = 10
    maximum_words: int = 100_000


@dataclass(frozen=True, slots=True)
class Shape:
    """A document's text, its words, the characters in them, those words with a letter, and the shares of
    repeated characters relative to their limits: above 1 is too much.
    """

    text: str
    words: int
    characters: int
    lettered: int
    repeated: float


def shapes(texts: Sequence[str], words: Words) -> Iterator[Shape]:
    lengths = np.fromiter(map(len, words.flat), np.int64, len(words.flat))
    digits = np.fromiter(map(str.isnumeric, words.flat), np.int64, len(words.flat))
    characters, numeric = _per_document(lengths, words), _per_document(digits, words)
    counts = words.counts
    lettered = counts - numeric
    columns = zip(counts.tolist(), characters.tolist(), lettered.tolist(), strict=True)
    for text, (count, total, letters), share in zip(texts, columns, _repetition(words, lengths), strict=True):
        yield Shape(text, count, total, letters, share)


def _per_document(values: I64, words: Words) -> I64:
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    totals: I64 = sums[words.starts[1:]] - sums[words.starts[:-1]]
    return totals


def _repetition(words: Words, lengths: I64) -> list[float]:
    """[documents]: the largest of the shares of repeated n-grams over their limits."""
    totals = np.maximum(_per_document(lengths, words), 1)
    worst = np.zeros(len(totals))
    # Most n-grams of a corpus do not repeat within a document; what a shorter one does not, a longer one
    # does not either. So each length looks only where the one before it repeated.
    open_words = (words.counts >= REPETITION_WORDS)[words.document]
    sums = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=sums[1:])
    for n, hashes in words.grams(max(REPEATED_GRAMS)):
        if n not in TOP_GRAMS and n not in REPEATED_GRAMS:
            continue
        starts = np.flatnonzero(open_words & (words.left >= n))
        again, firsts, counts = _repeats(hashes, words.document, starts)
        if n in TOP_GRAMS:
            share = np.zeros(len(totals))
            sizes = (sums[firsts + n] - sums[firsts]) * counts
            np.maximum.at(share, words.document[firsts], sizes)
            limit = TOP_GRAMS[n]
        else:
            share = _covered(again, n, lengths, words).astype(float)
            limit = REPEATED_GRAMS[n]
        worst = np.maximum(worst, share / totals / limit)
        repeated = np.zeros(len(totals), bool)
        repeated[words.document[firsts]] = True
        open_words &= repeated[words.document]
    shares: list[float] = worst.tolist()
    return shares


def _repeats(hashes: U64, document: I64, starts: I64) -> tuple[I64, I64, I64]:
    """Of the n-grams at `starts`: where each occurs again; where those that do occur first, and how often."""
    keys = hashes[starts] + document[starts].astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    again = starts[order[1:][same]]
    begins = np.flatnonzero(np.concatenate([[True], ~same])) if len(ordered) else np.zeros(0, np.int64)
    counts = np.diff(np.append(begins, len(ordered)))
    several = counts > 1
    return again, starts[order[begins[several]]], counts[several]


def _covered(again: I64, n: int, lengths: I64, words: Words) -> I64:
    """[documents]: characters of the words in n-grams that occurred before, each once."""
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(edges, again, 1)
    np.add.at(edges, again + n, -1)
    inside = np.cumsum(edges[:-1]) > 0
    return _per_document(np.where(inside, lengths, 0), words)


# Each rule of form: is the document to be removed?
RULES: dict[str, Callable[[Shape, Form], bool]] = {
    "short": lambda shape, form: shape.words < form.minimum_words,
    "long": lambda shape, form: shape.words > form.maximum_words,
    "word-length": lambda shape, _: _odd_words(shape),
    "symbols": lambda shape, _: _symbols(shape.text) > SYMBOLS * shape.words,
    "letters": lambda shape, _: shape.lettered < LETTERS * shape.words,
    "lines": lambda shape, _: _odd_lines(shape.text),
    "boilerplate": lambda shape, _: _boilerplate(shape.text),
    "repeated-lines": lambda shape, _: _repeated_lines(shape.text),
    "repeated-words": lambda shape, _: shape.repeated > 1,
}


def first_broken(shape: Shape, form: Form, names: Sequence[str]) -> str | None:
    """The first of the rules `names` that removes the document."""
    return next((name for name in names if RULES[name](shape, form)), None)


def _odd_words(shape: Shape) -> bool:
    """Where words are not parted by spaces their length says nothing."""
    low, high = WORD_LENGTH
    odd = not low * shape.words <= shape.characters <= high * shape.words
    return odd and not _IDEOGRAPH.search(shape.text)


def _symbols(text: str) -> int:
    return text.count("#") + text.count("…") + text.count("...")


def _lines_of(text: str) -> list[str]:
    if text.count("\n") < MANY_LINES - 1:
        return []
    return [line for line in text.split("\n") if line.strip()]


def _odd_lines(text: str) -> bool:
    lines = _lines_of(text)
    if len(lines) < MANY_LINES:
        return False
    bullets = sum(_BULLET.match(line) is not None for line in lines)
    ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    return bullets > BULLETS * len(lines) or ellipses > ELLIPSES * len(lines)


def _boilerplate(text: str) -> bool:
    text = text.lower()
    if _LOREM in text:
        return True
    if not any(hint in text for hint in _HINTS):
        return False
    lines = [line for line in text.split("\n") if line.strip()]
    return sum(_PHRASES.search(line) is not None for line in lines) > BOILERPLATE_LINES * len(lines)


def _repeated_lines(text: str) -> bool:
    lines = _lines_of(text)
    if len(lines) < MANY_LINES:
        return False
    again = [(line, count - 1) for line, count in Counter(lines).items() if count > 1]
    characters = sum(len(line) * count for line, count in again)
    too_many = sum(count for _, count in again) > REPEATED_LINES * len(lines)
    return too_many or characters > REPEATED_LINE_CHARACTERS * sum(map(len, lines))
