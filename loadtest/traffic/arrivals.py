"""When requests are sent: kinds of arrivals, and their times as iterators.

An open loop sends when a request is due, whether or not the earlier ones were answered; a closed loop has
users who wait for their answer. Schroeder, Wierman, Harchol-Balter: "Open versus closed: a cautionary tale",
NSDI 2006.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Annotated, Any

from loadtest.errors import TrafficError
from loadtest.fields import (
    MAX_TOKENS,
    Number,
    Whole,
    at,
    fault,
    list_of,
    read,
    shown,
    table_from,
    table_of,
)
from loadtest.traffic.lengths import Quantiles

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# A conversation service, by its published quantiles, for a trace that needs no file: Azure LLM inference
# trace 2023, conversations, 19,366 requests in 3,502 s, CC-BY 4.0; P. Patel et al., "Splitwise: Efficient
# generative LLM inference using phase splitting", ISCA 2024. The deviation of its gaps is 1.09 of their mean.
# Input and output are drawn independently: in the trace they correlate at -0.11.
AZURE_RATE_PER_S = 5.53
INPUT = Quantiles(((0.1, 207), (0.5, 1020), (0.9, 2735), (0.99, 4142)))
OUTPUT = Quantiles(((0.1, 54), (0.5, 129), (0.9, 424), (0.99, 601)))

RATE = Number(above=0, most=100_000)
USERS = Whole(1, 100_000)
SPEED = Number(above=0, most=10_000)
_Rate = Annotated[float, RATE]
_Variation = Annotated[float, Number(above=0, most=20)]


def _columns(value: object, place: str) -> tuple[str, ...]:
    names = tuple(list_of(value, place))
    if len(set(names)) != 3 or not all(isinstance(name, str) for name in names):
        raise fault(place, names, "must name three columns: time, tokens in, tokens out")
    return names


class _Kind:
    """Named in a profile by its class."""

    __slots__ = ()

    def as_table(self) -> dict[str, Any]:
        return {"kind": type(self).__name__.lower(), **table_from(self)}


@dataclass(frozen=True, slots=True)
class Closed(_Kind):
    """Each user waits for the answer, thinks, and sends the next request."""

    users: Annotated[int, USERS] = 8
    think_s: Annotated[float, Number()] = 0.0


@dataclass(frozen=True, slots=True)
class Constant(_Kind):
    rate_per_s: _Rate


@dataclass(frozen=True, slots=True)
class Poisson(_Kind):
    """Independent requests: the gaps between them are exponential."""

    rate_per_s: _Rate


@dataclass(frozen=True, slots=True)
class Gamma(_Kind):
    """Bursts: gaps of a gamma distribution; `variation` is their deviation by their mean, 1 is Poisson."""

    rate_per_s: _Rate
    variation: _Variation = 2.0


@dataclass(frozen=True, slots=True)
class Trace(_Kind):
    """The times and lengths of a recorded service, or without a file of a generator with published quantiles.

    At `speed` 2 it is replayed twice as fast, `scale` multiplies the tokens. `rate_per_s` and `variation`
    are the generator's own: a file brings its times, and has `columns`.
    """

    file: Path | None = None
    columns: Annotated[tuple[str, ...], _columns] = COLUMNS
    speed: Annotated[float, SPEED] = 1.0
    scale: Annotated[float, Number(above=0, most=1_000)] = 1.0
    rate_per_s: _Rate = AZURE_RATE_PER_S
    variation: _Variation = 1.0

    def as_table(self) -> dict[str, Any]:
        return {k: v for k, v in _Kind.as_table(self).items() if k not in _unfit(self.file is not None)}


def _unfit(has_file: bool) -> tuple[str, ...]:
    return ("rate_per_s", "variation") if has_file else ("columns",)


Arrivals = Closed | Constant | Poisson | Gamma | Trace
KINDS: dict[str, type[Arrivals]] = {
    "closed": Closed, "constant": Constant, "poisson": Poisson, "gamma": Gamma, "trace": Trace,
}  # fmt: skip


def arrivals_of(content: object, place: str) -> Arrivals:
    """Those of the table [arrivals]."""
    table = table_of(content, place)
    if "kind" not in table:
        raise TrafficError(f"{at(place, 'kind')}: is missing")
    kind = table["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise fault(at(place, "kind"), kind, f"must be one of {', '.join(KINDS)}")
    found = read(KINDS[kind], table, place, also=("kind",))
    if isinstance(found, Trace):
        for key in _unfit(found.file is not None):
            if key in table:
                why = "brings its own times; speed changes them" if found.file else "has columns"
                raise TrafficError(f"{at(place, key)}: a trace's file {why}")
    return found


def constant_times(rate_per_s: float) -> Iterator[float]:
    """Seconds since the start, without end; the first is due at once."""
    return (number / rate_per_s for number in count())


def random_times(rate_per_s: float, variation: float, random: Random) -> Iterator[float]:
    """Seconds since the start, without end; the gaps' deviation is `variation` times their mean."""
    shape = variation**-2
    now_s = 0.0
    while True:
        now_s += random.gammavariate(shape, 1 / (shape * rate_per_s))
        yield now_s


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request is due, in seconds since the first, and what it brings and asks for in tokens."""

    at_s: float
    tokens_in: int
    tokens_out: int


def generated(trace: Trace, seed: int) -> Iterator[Arrival]:
    """Arrivals without end, at `rate_per_s` times `speed`; their lengths do not depend on the rate."""
    lengths = Random(f"{seed}/lengths")
    times = random_times(trace.rate_per_s * trace.speed, trace.variation, Random(f"{seed}/times"))
    for at_s in times:
        yield Arrival(at_s, INPUT.sample(lengths), OUTPUT.sample(lengths))


def read_trace(path: Path, columns: Sequence[str] = COLUMNS, speed: float = 1.0) -> tuple[Arrival, ...]:
    """The requests of a CSV file with a header, in the order of their times, replayed `speed` times as fast.

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
    replayed = (Arrival((row.at_s - begin_s) / speed, row.tokens_in, row.tokens_out) for row in rows)
    return tuple(sorted(replayed, key=lambda arrival: arrival.at_s))


def _rows(path: Path, lines: Iterable[str], columns: Sequence[str]) -> Iterator[Arrival]:
    reader = csv.reader(lines)
    names = [name.strip() for name in next(reader, [])]
    for column in columns:
        if column not in names:
            raise TrafficError(f"{path}, line 1: no column {column}; there are {', '.join(names) or 'none'}")
    places = [names.index(column) for column in columns]
    for row in reader:
        if not row:  # a blank line is none
            continue
        line = f"{path}, line {reader.line_num}"
        if len(row) <= max(places):
            raise TrafficError(f"{line}: has {len(row)} columns, must have at least {max(places) + 1}")
        time, brought, asked = (row[index].strip() for index in places)
        at_s, tokens_in, tokens_out = (f"{line}, {column}" for column in columns)
        yield Arrival(_seconds(at_s, time), _tokens(tokens_in, brought), _tokens(tokens_out, asked))


def _seconds(place: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            found = datetime.fromisoformat(text)
        except ValueError as error:
            raise fault(place, text, "must be an ISO date or seconds") from error
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise fault(place, text, "must be finite")
    return seconds


def _tokens(place: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9) or int(text) > MAX_TOKENS:
        raise TrafficError(f"{place}: {shown(text)}, must be a whole number from 0 to {MAX_TOKENS:,}")
    return int(text)
