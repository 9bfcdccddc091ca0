"""Words of a chunk of documents as numbers, and the n-grams of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain, compress

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

# Chinese and Japanese have no spaces between words: there each character is one.
IDEOGRAPHS = "\u2e80-\u9fff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{IDEOGRAPHS}]|[^\\W_{IDEOGRAPHS}]+")
# Odd, so that multiplying by it loses no bit.
_STEP = 0x9E3779B97F4A7C15
_REMEMBERED = 1 << 17


def words_of(text: str) -> list[str]:
    """Runs of letters and digits in lower case; punctuation and underscores part them."""
    return _WORD.findall(text.lower())


class _Hashes(dict[str, int]):
    """A word's 64 bits, the same in every process."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        value = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
        self[word] = value
        return value


_hashes = _Hashes()


class Words:
    """The words of documents in a row: document d has those from `starts[d]` to `starts[d + 1]`."""

    def __init__(self, flat: list[str], hashes: U64, counts: I64) -> None:
        self.flat, self.hashes, self.counts = flat, hashes, counts
        self.starts: I64 = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=self.starts[1:])
        self.document: I64 = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        # How many words the document still has, from each word on.
        self.left: I64 = self.starts[1:][self.document] - np.arange(len(flat), dtype=np.int64)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Words:
        lists = [words_of(text) for text in texts]
        flat = list(chain.from_iterable(lists))
        hashes = np.fromiter(map(_hashes.__getitem__, flat), np.uint64, len(flat))
        return cls(flat, hashes, np.array([len(words) for words in lists], np.int64))

    def only(self, documents: Sequence[int]) -> Words:
        """Those of some documents, given in their order."""
        if len(documents) == len(self.counts):
            return self
        chosen = np.zeros(len(self.counts), bool)
        chosen[list(documents)] = True
        there = chosen[self.document]
        return Words(list(compress(self.flat, there.tolist())), self.hashes[there], self.counts[chosen])

    def grams(self, longest: int) -> Iterator[tuple[int, U64]]:
        """For n from 1 to `longest` the hash of the n words from each word on. It means nothing where
        `left` is below n. The array is overwritten by the next step.
        """
        sums = self.hashes.copy()
        total, factor = len(sums), 1
        for n in range(1, longest + 1):
            if 1 < n <= total:
                sums[: total - n + 1] += self.hashes[n - 1 :] * np.uint64(factor)
            yield n, sums
            factor = factor * _STEP % (1 << 64)
