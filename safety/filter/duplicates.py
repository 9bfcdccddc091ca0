"""Exact and near duplicates: what a worker computes of a text, and the index of what was kept.

Near duplicates are found by MinHash (Broder 1997) over sets of five-word shingles, with 14 bands of 8 values
as in FineWeb (Penedo et al. 2024): two texts of Jaccard similarity s meet with probability
1 - (1 - s^8)^14, which is 5 % at 0.5, 77 % at 0.75 and 99 % at 0.85. A text is compared with those that were
kept, never with removed ones, so no chain of small differences removes what nothing kept resembles.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from rensa import RMinHash

from safety.filter.words import U64, Words

SHINGLE = 5
BANDS = 14
ROWS = 8
SEED = 1
# The bytes that a kept text has in the index.
BYTES = 8 * (1 + BANDS)
_MIX = np.random.default_rng(SEED).integers(0, 1 << 63, ROWS, np.uint64) * np.uint64(2) + np.uint64(1)


def exact_keys(texts: Sequence[str]) -> U64:
    """[documents]: of the text with each run of white space as one space."""
    digests = [blake2b(" ".join(text.split()).encode(), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), np.uint64)


def near_keys(words: Words) -> U64:
    """[documents, BANDS]: texts of which one key is equal are near duplicates. A text of fewer words than a
    shingle has its words as its only one.
    """
    shingles, starts = _shingles(words)
    count = len(starts) - 1
    if count == 0:
        return np.zeros((0, BANDS), np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, starts, BANDS * ROWS, SEED)
    rows = np.array(matrix.to_rows(), np.uint64).reshape(count, BANDS, ROWS)
    sums: U64 = (rows * _MIX).sum(axis=2, dtype=np.uint64)
    # The high bits of a sum of products depend on all rows, the low ones on the low bits alone.
    mixed: U64 = (sums ^ (sums >> np.uint64(29))) * _MIX[0]
    return mixed


def _shingles(words: Words) -> tuple[U64, U64]:
    """The shingles of all documents in a row, and where each document's begin; a document without words
    has one of its own.
    """
    counts = words.counts
    short = counts < SHINGLE
    sums = words.hashes
    last: dict[int, int] = {}
    for n, sums in words.grams(SHINGLE):
        if n < SHINGLE:
            there = np.flatnonzero(counts == n)
            last.update(zip(there.tolist(), sums[words.starts[there]].tolist(), strict=True))
    whole = sums[words.left >= SHINGLE]
    sizes = np.where(short, 1, counts - SHINGLE + 1)
    starts = np.zeros(len(sizes) + 1, np.uint64)
    np.cumsum(sizes, out=starts[1:])
    flat = np.zeros(int(starts[-1]), np.uint64)
    alone = np.zeros(len(flat), bool)
    alone[starts[:-1][short].astype(np.int64)] = True
    flat[~alone] = whole
    flat[alone] = [last.get(d, 0) for d in np.flatnonzero(short).tolist()]
    return flat, starts


class Seen:
    """A set of 64-bit keys in sorted arrays: 8 bytes a key, where a Python set takes 60 and more.

    Arrays of like size are merged, so n keys lie in about log2(n / batch) of them.
    """

    def __init__(self) -> None:
        self._levels: list[U64] = []

    def has(self, keys: U64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        found = np.zeros(len(keys), bool)
        for level in self._levels:
            places = np.minimum(np.searchsorted(level, keys), len(level) - 1)
            found |= level[places] == keys
        return found

    def add(self, keys: U64) -> None:
        if not len(keys):
            return
        new = np.sort(keys)
        while self._levels and len(self._levels[-1]) < 2 * len(new):
            new = np.concatenate([self._levels.pop(), new])
            new.sort(kind="stable")
        self._levels.append(new)


class Index:
    """The keys of every kept text. It takes `BYTES` a text, and in the largest merge a fifteenth more."""

    def __init__(self, exact: bool, near: bool) -> None:
        self._exact = Seen() if exact else None
        self._near = [Seen() for _ in range(BANDS)] if near else []

    def admit(self, keys: U64) -> list[str | None]:
        """[documents, 1 + BANDS] in their order → for each None, or the name of the rule that removes it."""
        known = self._known(keys)
        local: set[int] = set()
        answers: list[str | None] = []
        for row, (exact, near) in zip(_distinct(keys).tolist(), known, strict=True):
            if self._exact is not None and (exact or row[0] in local):
                answers.append("exact-duplicate")
            elif self._near and (near or not local.isdisjoint(row[1:])):
                answers.append("near-duplicate")
            else:
                answers.append(None)
                local.update(row)
        self.load(keys[[answer is None for answer in answers]])
        return answers

    def load(self, keys: U64) -> None:
        """Takes up texts that are known to be kept."""
        if self._exact is not None:
            self._exact.add(keys[:, 0])
        for band, seen in enumerate(self._near, start=1):
            seen.add(keys[:, band])

    def _known(self, keys: U64) -> list[tuple[bool, bool]]:
        none = np.zeros(len(keys), bool)
        exact = none if self._exact is None else self._exact.has(keys[:, 0])
        near = none.copy()
        for band, seen in enumerate(self._near, start=1):
            near |= seen.has(keys[:, band])
        return list(zip(exact.tolist(), near.tolist(), strict=True))


def _distinct(keys: U64) -> U64:
    """Equal keys of two bands are made to differ: a set of all of them then keeps the bands apart."""
    salts = np.arange(1, 2 + BANDS, dtype=np.uint64) * _MIX[1]
    salted: U64 = keys ^ salts
    return salted
