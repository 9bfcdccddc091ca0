"""How toxic a text is: a linear classifier over counts of words, from plain arrays."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

WEIGHTS = Path(__file__).parent / "weights" / "toxicity.npz"
SHA256 = "51136f65a028010ffc22f5287952f9c835a31f93557aa38b920705f109d09262"
# Bounds the memory of one pass: about 70 bytes per character.
BLOCK = 1 << 20
WORD = re.compile(r"\w\w+")
# Splits ASCII text faster than the pattern, into the same words and letters that the vocabulary lacks.
ASCII = {code: chr(code).lower() if re.match(r"\w", chr(code)) else " " for code in range(128)}


class WeightsError(Exception):
    """Weights that are not those of this version; the text names the file."""


def words(text: str) -> list[str]:
    """Runs of two or more letters, digits and underscores, in lower case."""
    return text.translate(ASCII).split() if text.isascii() else WORD.findall(text.lower())


@dataclass(frozen=True, slots=True)
class Toxicity:
    """Support vector machines over TF-IDF of length 1, the mean of their probabilities by Platt's scaling
    (Platt, 1999, "Probabilistic outputs for support vector machines").

    V words, M machines: `column` gives a word's place in `idf` [V] and a column of `coefficients` [M, V];
    `intercepts`, `slopes` and `offsets` have the shape [M].
    """

    column: dict[str, int]
    idf: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]

    @classmethod
    def load(cls, path: Path = WEIGHTS, sha256: str = SHA256) -> Self:
        """Raises WeightsError where the file has another hash, OSError where it cannot be read."""
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise WeightsError(f"{path}: SHA-256 is {found}, not {sha256}; restore the file")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            names = bytes(arrays["words"]).decode().split("\n")
            fields = ("idf", "coefficients", "intercepts", "slopes", "offsets")
            return cls({name: row for row, name in enumerate(names)}, *(arrays[field] for field in fields))

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability that each text is toxic, [len(texts)], whatever the order and the case of its words."""
        parts = [self._block(block) for block in _blocks(texts)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _block(self, texts: Sequence[str]) -> NDArray[np.float64]:
        found = [words(text) for text in texts]
        row = np.fromiter(map(self.column.get, chain.from_iterable(found), repeat(-1)), np.int64)
        keys = np.repeat(np.arange(len(texts)), [len(each) for each in found]) * len(self.idf) + row
        # Sorted, so that sums do not depend on the order of the words, to the last bit.
        keys, counts = np.unique(keys[row >= 0], return_counts=True)
        text, row = np.divmod(keys, len(self.idf))
        values = counts * self.idf[row]
        length = np.sqrt(np.bincount(text, values * values, len(texts)))
        length[length == 0] = 1  # No known word: the intercepts alone decide.
        sums = [np.bincount(text, values * machine[row], len(texts)) for machine in self.coefficients]
        return self._probability(np.stack(sums) / length)

    def _probability(self, products: NDArray[np.float64]) -> NDArray[np.float64]:
        """Products of each machine with each text, [M, N], to probabilities [N]."""
        margins = products + self.intercepts[:, None]
        exponents = self.slopes[:, None] * margins + self.offsets[:, None]
        return np.asarray((1 / (1 + np.exp(exponents))).mean(axis=0), np.float64)


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive texts of at least BLOCK characters together, but the last."""
    start = size = 0
    for end, text in enumerate(texts, 1):
        size += len(text)
        if size >= BLOCK:
            yield texts[start:end]
            start, size = end, 0
    if start < len(texts):
        yield texts[start:]
