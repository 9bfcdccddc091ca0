"""A run in progress: its records so far, its counts for the screen, and the errors of a worker that was lost.
Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice

from loadtest.measure.record import Record
from loadtest.measure.statistics import error_class
from loadtest.traffic.arrivals import Closed
from loadtest.traffic.profile import Profile
from loadtest.traffic.schedule import Planned, schedule, share_of
from loadtest.users.request import WORKER_LOST, Tape, phase_of
from loadtest.users.worker import Report, State

# Tokens a second are a mean over the last so many seconds.
_RATE_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """`ttft_s` is p50 and p99 of the measured requests so far, of the warm-up's before there are any."""

    begun: int
    open: int
    ended: int
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
        ttfts_s = sorted(self._ttfts_s.get("measure") or self._ttfts_s.get("warmup", []))
        count = len(ttfts_s)
        return Progress(
            begun=sum(report.begun for report in reports),
            open=sum(report.open for report in reports),
            ended=len(self.records),
            tokens_per_s=(tokens - before) / (now_s - begin_s) if now_s > begin_s else 0.0,
            ttft_s=(ttfts_s[count // 2], ttfts_s[min(count - 1, int(0.99 * count))]) if count else None,
            errors=dict(self._errors.most_common()),
        )


def owed(
    profile: Profile, model: str, worker: int, workers: int, at_s: float, until_s: float, seen: Set[int]
) -> Iterator[Record]:
    """An error for each request of a lost worker's share that has no record: `seen` are the numbers of those
    that have one. Its loss was noticed `at_s`; the run ended at `until_s`, early or not.

    In a closed loop nobody knows what it would have sent: one for each of its users, who had one under way.
    """
    share = schedule(profile, worker, workers)
    missing: Iterator[Planned] = (planned for planned in share if planned.request not in seen)
    if isinstance(profile.arrivals, Closed):
        missing = islice(missing, share_of(profile.arrivals.users, worker, workers))
    for planned in missing:
        intended_s = min(at_s, until_s) if planned.at_s is None else planned.at_s
        if planned.at_s is not None and planned.at_s >= until_s:
            return
        name = planned.kind.model or model
        tape = Tape(planned, name, intended_s, phase_of(profile, intended_s))
        tape.sent(intended_s)  # nobody knows when, and the generator was not late
        yield tape.record(max(at_s, intended_s), WORKER_LOST)
