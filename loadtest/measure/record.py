"""The record of one request, as the load generator measured it, and records as JSON lines.

All times are seconds since the start of the run, by one clock. Latency counts from the moment a request
should have been sent, so that a stalled server cannot hide behind requests that it kept from being sent
("coordinated omission").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from math import isfinite
from typing import Annotated

from loadtest.errors import BenchError, TrafficError
from loadtest.fields import Whole, fault, one_of, read

PROTOCOLS = ("grpc", "http", "unary")
PHASES = ("warmup", "measure", "drain")
FINISHES = ("stop", "length", "stop_sequence")

# Seconds since the start of the run, and the tokens that came then.
Chunk = tuple[float, int]
_Count = Annotated[int, Whole(0, 2**63)]


def _chunks(value: object, place: str) -> tuple[Chunk, ...]:
    """A run has many: they are checked here, and not one by one as the fields of a dataclass."""
    found = tuple(map(tuple, value)) if isinstance(value, list) and all(map(_is_chunk, value)) else None
    if found is None:
        raise fault(place, value, "must be a list of [seconds, tokens] with at least one token each")
    return found


def _is_chunk(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    at_s, tokens = value
    return type(at_s) in (int, float) and isfinite(at_s) and type(tokens) is int and tokens > 0


@dataclass(frozen=True, slots=True)
class Record:
    """`request` is unique over all workers. `intended_s` is when it should have been sent; in a closed loop
    that is `sent_s`. `first_s` is the first chunk with a token, None for unary and where none came. `end_s`
    is the last chunk, the error or the disconnect. `chunks` holds those with tokens, () for unary.

    `finish_reason` is one of FINISHES, None unless complete. `error` is the class of the error
    ("UNAVAILABLE", "INVALID_ARG", "DEADLINE_EXCEEDED", "timeout", "connection", ...). `expected` is false
    for an error that the mix did not ask for, or for its absence where the mix did. `phase` goes by
    `intended_s`; statistics take "measure" alone.
    """

    request: _Count
    kind: str
    protocol: Annotated[str, one_of(*PROTOCOLS)]
    model: str
    intended_s: float
    sent_s: float
    first_s: float | None
    end_s: float
    tokens_in: _Count
    tokens_out: _Count
    chunks: Annotated[tuple[Chunk, ...], _chunks]
    finish_reason: Annotated[str, one_of(*FINISHES)] | None
    error: str | None
    expected: bool
    phase: Annotated[str, one_of(*PHASES)]

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.intended_s

    @property
    def e2e_s(self) -> float:
        return self.end_s - self.intended_s

    @property
    def lag_s(self) -> float:
        """How late the generator itself was, the wait for a connection included."""
        return self.sent_s - self.intended_s

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """What a reader waits for: from each chunk to the next, however many tokens it has."""
        return tuple(now - before for (before, _), (now, _) in pairwise(self.chunks))

    @property
    def itl(self) -> tuple[Chunk, ...]:
        """Inter-token latency: for each chunk after the first, the share of each token of the time since
        the chunk before, and how many tokens had it."""
        return tuple(
            ((now - before) / tokens, tokens) for (before, _), (now, tokens) in pairwise(self.chunks)
        )

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first chunk; None where there was no second chunk."""
        if len(self.chunks) < 2:
            return None
        return (self.chunks[-1][0] - self.chunks[0][0]) / sum(tokens for _, tokens in self.chunks[1:])

    @property
    def is_complete(self) -> bool:
        return self.finish_reason is not None and self.error is None


def encode(record: Record) -> str:
    """One line of JSON, without its end."""
    return json.dumps({item.name: getattr(record, item.name) for item in fields(Record)}, allow_nan=False)


def decode(line: str) -> Record:
    """BenchError names the field and what it must be."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BenchError(f"a record is no JSON: {error}") from error
    try:
        return read(Record, found, "a record")
    except TrafficError as error:  # here no command is wrong
        raise BenchError(str(error)) from error


def encode_lines(records: Iterable[Record]) -> Iterator[str]:
    """Lines with their ends, for a file."""
    return (encode(record) + "\n" for record in records)


def decode_lines(lines: Iterable[str]) -> Iterator[Record]:
    """BenchError names the line as well; empty lines are skipped."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield decode(line)
            except BenchError as error:
                raise BenchError(f"line {number}: {error}") from error
