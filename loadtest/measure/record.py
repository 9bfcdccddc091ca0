"""One request as the load generator saw it, and records as JSON lines.

All times are seconds since the start of the run, by one clock. Latency counts from the moment a request
should have been sent, so that a stalled server cannot hide behind requests that it kept from being sent
("coordinated omission").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from math import isfinite
from typing import Any

from loadtest.errors import BenchError

PROTOCOLS = ("grpc", "http", "unary")
PHASES = ("warmup", "measure", "drain")
FINISHES = ("stop", "length", "stop_sequence")

# Seconds since the start of the run, and the tokens that came then.
Chunk = tuple[float, int]


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

    request: int
    kind: str
    protocol: str
    model: str
    intended_s: float
    sent_s: float
    first_s: float | None
    end_s: float
    tokens_in: int
    tokens_out: int
    chunks: tuple[Chunk, ...]
    finish_reason: str | None
    error: str | None
    expected: bool
    phase: str

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
    return json.dumps({name: getattr(record, name) for name in _CHECKS}, allow_nan=False)


def decode(line: str) -> Record:
    """Raises BenchError naming the field and what it must be."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BenchError(f"a record is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise BenchError(f"a record must be a JSON object, not {_short(found)}")
    _check_names(found)
    for name, (holds, must) in _CHECKS.items():
        if not holds(found[name]):
            raise BenchError(f"a record's {name} is {_short(found[name])}, must be {must}")
    found["chunks"] = tuple((at, tokens) for at, tokens in found["chunks"])
    return Record(**found)


def encode_lines(records: Iterable[Record]) -> Iterator[str]:
    """Lines with their ends, for a file."""
    return (encode(record) + "\n" for record in records)


def decode_lines(lines: Iterable[str]) -> Iterator[Record]:
    """Raises BenchError naming the line as well; empty lines are skipped."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield decode(line)
            except BenchError as error:
                raise BenchError(f"line {number}: {error}") from error


def _check_names(found: Mapping[str, Any]) -> None:
    if missing := [name for name in _CHECKS if name not in found]:
        raise BenchError(f"a record lacks {', '.join(missing)}")
    if unknown := [name for name in found if name not in _CHECKS]:
        raise BenchError(f"a record has the unknown {', '.join(map(_short, unknown))}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_chunks(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(chunk, list)
        and len(chunk) == 2
        and _is_time(chunk[0])
        and _is_count(chunk[1])
        and chunk[1]
        for chunk in value
    )


def _or_none(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or holds(value)


def _one_of(*allowed: str) -> Callable[[object], bool]:
    return lambda value: value in allowed


_COUNT = (_is_count, "a whole number of at least 0")
_TIME = (_is_time, "a finite number of seconds")
_TEXT = (_is_text, "text")
_CHECKS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "request": _COUNT,
    "kind": _TEXT,
    "protocol": (_one_of(*PROTOCOLS), f"one of {', '.join(PROTOCOLS)}"),
    "model": _TEXT,
    "intended_s": _TIME,
    "sent_s": _TIME,
    "first_s": (_or_none(_is_time), "a finite number of seconds or null"),
    "end_s": _TIME,
    "tokens_in": _COUNT,
    "tokens_out": _COUNT,
    "chunks": (_are_chunks, "a list of [seconds, tokens] with at least one token each"),
    "finish_reason": (_or_none(_one_of(*FINISHES)), f"null or one of {', '.join(FINISHES)}"),
    "error": (_or_none(_is_text), "text or null"),
    "expected": (lambda value: isinstance(value, bool), "true or false"),
    "phase": (_one_of(*PHASES), f"one of {', '.join(PHASES)}"),
}
assert tuple(_CHECKS) == tuple(field.name for field in fields(Record))
