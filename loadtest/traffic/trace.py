"""Recorded traffic: CSV with a header, one row a request, with its time and its tokens in and out."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtest.errors import TrafficError
from loadtest.traffic.arrivals import COLUMNS
from loadtest.traffic.table import MAX_TOKENS, shown


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request is due, in seconds since the first, and what it brings and asks for in tokens."""

    at_s: float
    tokens_in: int
    tokens_out: int


def read_trace(path: Path, columns: Sequence[str] = COLUMNS, speed: float = 1.0) -> tuple[Arrival, ...]:
    """The requests of a file in the order of their times, played `speed` times as fast.

    Times are ISO dates, of which 6 digits of a second count, or seconds. TrafficError names line and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = tuple(_rows(path, file, columns))
    except OSError as error:
        raise TrafficError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TrafficError(f"{path}: is not CSV in UTF-8: {error}") from error
    if not rows:
        raise TrafficError(f"{path}: has no request")
    begin_s = min(row.at_s for row in rows)
    played = (Arrival((row.at_s - begin_s) / speed, row.tokens_in, row.tokens_out) for row in rows)
    return tuple(sorted(played, key=lambda arrival: arrival.at_s))


def _rows(path: Path, lines: Iterable[str], columns: Sequence[str]) -> Iterator[Arrival]:
    reader = csv.reader(lines)
    places = _places(path, next(reader, []), columns)
    for row in reader:
        if row:  # a blank line is none
            yield _arrival(f"{path}, line {reader.line_num}", row, columns, places)


def _places(path: Path, header: list[str], columns: Sequence[str]) -> list[int]:
    names = [name.strip() for name in header]
    for column in columns:
        if column not in names:
            raise TrafficError(f"{path}, line 1: no column {column}; there are {', '.join(names) or 'none'}")
    return [names.index(column) for column in columns]


def _arrival(place: str, row: list[str], columns: Sequence[str], places: Sequence[int]) -> Arrival:
    if len(row) <= max(places):
        raise TrafficError(f"{place}: has {len(row)} columns, must have at least {max(places) + 1}")
    at_s, tokens_in, tokens_out = (f"{place}, {column}" for column in columns)
    time, brought, asked = (row[index].strip() for index in places)
    return Arrival(_seconds(at_s, time), _tokens(tokens_in, brought), _tokens(tokens_out, asked))


def _seconds(place: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return _date(place, text)
    if not math.isfinite(seconds):
        raise TrafficError(f"{place}: {shown(text)}, must be finite")
    return seconds


def _date(place: str, text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise TrafficError(f"{place}: {shown(text)}, must be an ISO date or seconds") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _tokens(place: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9) or int(text) > MAX_TOKENS:
        raise TrafficError(f"{place}: {shown(text)}, must be a whole number from 0 to {MAX_TOKENS:,}")
    return int(text)
