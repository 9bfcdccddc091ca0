"""What is known of a run while it goes on: records as they are told, and counts for the eye. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from loadtest.measure.observed import error_class
from loadtest.measure.record import Record, decode
from loadtest.users.plan import Report, State

# Tokens a second are shown over so many seconds.
_RATE_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """`ttft_s` is p50 and p99 of the measured requests so far, of the warm-up's before there are any."""

    begun: int
    open: int
    ended: int
    capped: int
    tokens: int
    tokens_per_s: float
    ttft_s: tuple[float, float] | None
    errors: Mapping[str, int]


class Tally:
    """Of the workers of one run, by their numbers."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.reports: dict[int, Report] = {}
        self._errors: Counter[str] = Counter()
        self._ttfts_s: dict[str, list[float]] = {}
        self._tokens: deque[tuple[float, int]] = deque()

    def take(self, worker: int, report: Report) -> None:
        self.reports[worker] = report
        for record in map(decode, report.lines):
            self.add(record)

    def add(self, record: Record) -> None:
        self.records.append(record)
        if (error := error_class(record)) is not None:
            self._errors[error] += 1
        if record.ttft_s is not None:
            self._ttfts_s.setdefault(record.phase, []).append(record.ttft_s)

    def are(self, state: State, workers: int) -> bool:
        states = [report.state for report in self.reports.values()]
        return len(states) == workers and all(found is state for found in states)

    def progress(self, now_s: float) -> Progress:
        reports = self.reports.values()
        tokens = sum(report.tokens for report in reports)
        self._tokens.append((now_s, tokens))
        while self._tokens[0][0] < now_s - _RATE_S:
            self._tokens.popleft()
        begin_s, before = self._tokens[0]
        return Progress(
            begun=sum(report.begun for report in reports),
            open=sum(report.open for report in reports),
            ended=len(self.records),
            capped=sum(report.capped for report in reports),
            tokens=tokens,
            tokens_per_s=(tokens - before) / (now_s - begin_s) if now_s > begin_s else 0.0,
            ttft_s=_percentiles(self._ttfts_s.get("measure") or self._ttfts_s.get("warmup", [])),
            errors=dict(self._errors.most_common()),
        )


def _percentiles(values: list[float]) -> tuple[float, float] | None:
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
