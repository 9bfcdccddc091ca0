"""Overlap of a corpus with evaluation texts by n-grams of words (Brown et al. 2020, appendix C).

A document overlaps with an evaluation text when they share 13 words in a row, in lower case and without
punctuation. An evaluation text of 8 to 12 words counts when the document has all of it; a shorter one is not
looked for, since it occurs by chance. This is exact: what the hashes find is compared word by word.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safety.filter.errors import FilterError
from safety.filter.words import I64, U64, Words

LENGTH = 13
SHORTEST = 8
_BATCH = 1000
# Bits of the hashes' upper part that a table of one byte each tells apart.
_TABLE_BITS = 20


@dataclass(frozen=True, slots=True)
class Overlap:
    """Document `text` has the `words` in a row that evaluation text `evaluation` has; both from 0."""

    text: int
    evaluation: int
    words: str


class Evaluation:
    """The n-grams of evaluation texts. `ignored` are those too short to be looked for."""

    def __init__(self, texts: Sequence[str], length: int = LENGTH, shortest: int = SHORTEST) -> None:
        words = Words.of(texts)
        sizes = np.minimum(words.counts, length)
        self.ignored = int((sizes < shortest).sum())
        self.length = length
        self._first: dict[int, dict[str, int]] = {}
        self._tables: dict[int, tuple[U64, np.ndarray[tuple[int], np.dtype[np.bool_]]]] = {}
        for n, sums in words.grams(length):
            starts = np.flatnonzero((words.left >= n) & (sizes[words.document] == n))
            if n >= shortest and len(starts):
                self._tables[n] = _table(sums[starts])
                self._first[n] = _first_texts(words, starts, n)

    def find(self, words: Words) -> dict[int, Overlap]:
        """By the document's number its first overlap: of the fewest words, then the earliest."""
        found: dict[int, Overlap] = {}
        for n, sums in words.grams(max(self._tables, default=0)):
            if n not in self._tables:
                continue
            for start in _candidates(sums, words.left, n, self._tables[n]):
                document = int(words.document[start])
                gram = " ".join(words.flat[start : start + n])
                first = self._first[n].get(gram)
                if first is not None and document not in found:
                    found[document] = Overlap(document, first, gram)
        return found


def _table(hashes: U64) -> tuple[U64, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    table = np.zeros(1 << _TABLE_BITS, bool)
    table[hashes >> np.uint64(64 - _TABLE_BITS)] = True
    return np.unique(hashes), table


def _first_texts(words: Words, starts: I64, n: int) -> dict[str, int]:
    first: dict[str, int] = {}
    for start in starts.tolist():
        first.setdefault(" ".join(words.flat[start : start + n]), int(words.document[start]))
    return first


def _candidates(
    sums: U64, left: I64, n: int, table: tuple[U64, np.ndarray[tuple[int], np.dtype[np.bool_]]]
) -> list[int]:
    """Where an n-gram begins whose hash an evaluation text has."""
    hashes, upper = table
    near = np.flatnonzero(upper[sums >> np.uint64(64 - _TABLE_BITS)] & (left >= n))
    places = np.minimum(np.searchsorted(hashes, sums[near]), len(hashes) - 1)
    starts: list[int] = near[hashes[places] == sums[near]].tolist()
    return starts


def overlaps(texts: Iterable[str], evaluation: Sequence[str], n: int = LENGTH) -> Iterator[Overlap]:
    """One overlap of each text that has any, in the order of the texts, which are read as a stream."""
    known = Evaluation(evaluation, n, min(n, SHORTEST))
    held: list[str] = []
    done = 0

    def flush() -> Iterator[Overlap]:
        found = known.find(Words.of(held))
        for index in sorted(found):
            yield Overlap(done + index, found[index].evaluation, found[index].words)

    for text in texts:
        held.append(text)
        if len(held) == _BATCH:
            yield from flush()
            done += len(held)
            held = []
    yield from flush()


def evaluation_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and all in folders that are named, by name."""
    found: list[Path] = []
    for path in paths:
        there = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        found += there
    return found


def read_evaluation(paths: Iterable[Path]) -> list[str]:
    """The texts of evaluation files, each once: lines of a text, strings of JSON or JSONL, cells of CSV or
    TSV; folders are read whole. FilterError names the file, and the place that cannot be read.
    """
    return list(dict.fromkeys(text for file in evaluation_files(paths) for text in _texts_of(file)))


def _texts_of(path: Path) -> Iterator[str]:
    try:
        content = path.read_text("utf-8-sig")
        if path.suffix == ".json":
            yield from _strings(json.loads(content))
        elif path.suffix in {".jsonl", ".ndjson"}:
            yield from _lines_of_json(content, path)
        elif path.suffix in {".csv", ".tsv"}:
            dialect = "excel-tab" if path.suffix == ".tsv" else "excel"
            for row in csv.reader(io.StringIO(content, newline=""), dialect):
                yield from row
        else:
            yield from content.splitlines()
    except OSError as error:
        raise FilterError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FilterError(f"{path}: byte {error.start} is not UTF-8 ({error.reason})") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise FilterError(f"{path}: {error}") from error


def _lines_of_json(content: str, path: Path) -> Iterator[str]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                yield from _strings(json.loads(line))
            except ValueError as error:
                raise FilterError(f"{path}: line {number}: not JSON: {error}") from error


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
