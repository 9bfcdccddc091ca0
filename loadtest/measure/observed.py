"""What the records hold of each measure, as arrays.

TTFT, TPOT and lag are seen at the moment the request should have been sent, E2E too; gaps between chunks
and the tokens themselves when they came. A request that ended without a token has no TTFT: it is among the
errors, so a limit on latency says nothing without the one on errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from loadtest.measure.record import Record
from loadtest.measure.statistics import Points

NO_ERROR = "no error"


@dataclass(frozen=True, slots=True)
class Observed:
    """`e2e` is of complete requests alone. `tokens` are values of 1, weighted by how many came."""

    ttft: Points
    gap: Points
    itl: Points
    tpot: Points
    e2e: Points
    lag: Points
    tokens: Points


def observe(records: Sequence[Record]) -> Observed:
    return Observed(
        ttft=Points.of([(r.intended_s, r.ttft_s, 1) for r in records if r.ttft_s is not None]),
        gap=Points.of(list(_gaps(records))),
        itl=Points.of(list(_shares(records))),
        tpot=Points.of([(r.intended_s, r.tpot_s, 1) for r in records if r.tpot_s is not None]),
        e2e=Points.of([(r.intended_s, r.e2e_s, 1) for r in records if r.is_complete]),
        lag=Points.of([(r.intended_s, r.lag_s, 1) for r in records]),
        tokens=Points.of(list(_tokens(records))),
    )


def measured(records: Iterable[Record]) -> list[Record]:
    """Those that statistics take: neither warm-up nor drain."""
    return [record for record in records if record.phase == "measure"]


def error_class(record: Record) -> str | None:
    """Of an error that the mix did not ask for; NO_ERROR where it asked for one and none came."""
    return None if record.expected else record.error or NO_ERROR


def _gaps(records: Iterable[Record]) -> Iterator[tuple[float, float, int]]:
    for record in records:
        for (at_s, _), gap_s in zip(record.chunks[1:], record.gaps_s, strict=True):
            yield at_s, gap_s, 1


def _shares(records: Iterable[Record]) -> Iterator[tuple[float, float, int]]:
    for record in records:
        for (at_s, _), (share_s, tokens) in zip(record.chunks[1:], record.itl, strict=True):
            yield at_s, share_s, tokens


def _tokens(records: Iterable[Record]) -> Iterator[tuple[float, float, int]]:
    """An answer in one piece comes with its end."""
    for record in records:
        chunks = record.chunks or ((record.end_s, record.tokens_out),)
        for at_s, tokens in chunks:
            yield at_s, 1.0, tokens
