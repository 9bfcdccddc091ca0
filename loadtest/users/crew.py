"""The master: workers that wait, a run that they make together, and what they tell of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import gevent

from loadtest.errors import BenchError
from loadtest.measure.record import Record
from loadtest.traffic.arrivals import Closed
from loadtest.traffic.profile import Profile
from loadtest.users.locusts import STATE_MISSING, Environment, MasterRunner
from loadtest.users.lost import Loss, owed
from loadtest.users.plan import (
    GO,
    PLAN,
    REPORT,
    STOP,
    STOP_HARD,
    STOP_SOFT,
    Plan,
    State,
    report_of,
)  # fmt: skip
from loadtest.users.stopping import Stopping
from loadtest.users.tally import Progress, Tally
from loadtest.users.worker import LoadUser

# From the last worker's "ready" to the first request: the message must have come to all of them.
_LEAD_S = 0.5
_READY_S = 60.0
# After the drain, for the last records to come.
_GRACE_S = 15.0
_POLL_S = 0.1
# Of an error's text.
_WORDS = 200
# Clocks of hosts that differ by more are told of; a message's way is part of the difference.
_CLOCK_S = 0.25

Watch = Callable[[float, Progress], None]


@dataclass(frozen=True, slots=True)
class Collected:
    """`ended_s` is when the load ended: the profile's end, or when it was interrupted. `remarks` are reasons
    to doubt the figures, in words."""

    records: Sequence[Record]
    start_epoch_s: float
    ended_s: float
    interrupted: bool
    capped: int
    remarks: tuple[str, ...]


class Crew:
    """Workers by their Locust ids. `alive` says more of local ones than their heartbeats do."""

    def __init__(self, runner: MasterRunner, alive: Callable[[], bool]) -> None:
        self._runner = runner
        self._alive = alive
        self._runs = 0
        self._tally = Tally()
        self._ids: list[str] = []
        self._clocks: dict[str, float] = {}
        runner.register_message(REPORT, self._reported)

    def gather(self, expect: int, stopping: Stopping, waiting_s: float | None) -> None:
        """Waits for so many workers; BenchError when they do not come in time."""
        began = time.monotonic()
        while len(self._runner.clients.ready) < expect:
            stopping.check()
            if not self._alive():
                raise BenchError("a worker ended before the run began; its words are above")
            if waiting_s is not None and time.monotonic() - began > waiting_s:
                found = len(self._runner.clients.ready)
                raise BenchError(f"{found} of {expect} workers have come within {waiting_s:.0f} s")
            gevent.sleep(_POLL_S)

    def run(self, profile: Profile, plan: Plan, stopping: Stopping, watch: Watch) -> Collected:
        """`plan` is everybody's; who is who is filled in. BenchError when a worker could not do its part."""
        self._tally, self._runs = Tally(), self._runs + 1
        plan = replace(plan, run=self._runs)
        try:
            self._seat(profile)
            self._prepare(plan, stopping)
            return self._collect(profile, plan, stopping, watch)
        finally:
            self._runner.stop()

    def _seat(self, profile: Profile) -> None:
        """Locust's users: those of a closed loop, or one for each worker."""
        self._ids = sorted(client.id for client in self._runner.clients.ready)
        count, workers = len(self._ids), self._ids
        users = profile.arrivals.users if isinstance(profile.arrivals, Closed) else count
        self._runner.start(users, spawn_rate=min(users, 100 * len(workers)))

    def _prepare(self, plan: Plan, stopping: Stopping) -> None:
        for number, name in enumerate(self._ids):
            told = replace(plan, worker=number, workers=len(self._ids))
            self._runner.send_message(PLAN, told.encode(), name)
        deadline = time.monotonic() + _READY_S
        while not self._tally.are(State.READY, len(self._ids)):
            stopping.check()
            self._raise_fault()
            if time.monotonic() > deadline or not self._alive():
                raise BenchError("a worker did not get ready; its words are above, or on its own terminal")
            gevent.sleep(_POLL_S)

    def _collect(self, profile: Profile, plan: Plan, stopping: Stopping, watch: Watch) -> Collected:
        start = time.time() + _LEAD_S
        zero = time.monotonic() + _LEAD_S
        self._runner.send_message(GO, {"zero_epoch_s": start})
        ended_s, told = profile.total_s, 0
        lost: dict[int, float] = {}
        while not self._is_over(lost):
            gevent.sleep(_POLL_S)
            now_s = time.monotonic() - zero
            self._raise_fault()
            if stopping.wishes > told:
                ended_s = min(ended_s, now_s) if not told else ended_s
                told = stopping.wishes
                self._runner.send_message(STOP, {"how": STOP_SOFT if told == 1 else STOP_HARD})
            self._note_lost(lost, now_s, last=now_s > ended_s + plan.drain_s + _GRACE_S)
            watch(now_s, self._tally.progress(now_s))
        self._settle(profile, plan, lost, ended_s)
        return Collected(
            records=tuple(sorted(self._tally.records, key=lambda record: record.intended_s)),
            start_epoch_s=start,
            ended_s=max(ended_s, 0.0),
            interrupted=told > 0,
            capped=sum(report.capped for report in self._tally.reports.values()),
            remarks=tuple(self._remarks(lost)),
        )

    def _is_over(self, lost: dict[int, float]) -> bool:
        reports = self._tally.reports
        return all(n in lost or reports[n].state is State.DONE for n in range(len(self._ids)))

    def _note_lost(self, lost: dict[int, float], now_s: float, *, last: bool) -> None:
        """A worker that was missed and is heard of again is not lost; at the `last` moment all others are."""
        for number, name in enumerate(self._ids):
            client = self._runner.clients.get(name)
            gone = client is None or client.state == STATE_MISSING
            done = self._tally.reports[number].state is State.DONE
            if done or not (gone or last):
                lost.pop(number, None)
            else:
                lost.setdefault(number, now_s)

    def _settle(self, profile: Profile, plan: Plan, lost: dict[int, float], ended_s: float) -> None:
        seen = {record.request for record in self._tally.records}
        for number, at_s in lost.items():
            loss = Loss(number, len(self._ids), at_s, ended_s)
            for record in list(owed(profile, plan.model, loss, seen)):
                self._tally.add(record)

    def _remarks(self, lost: dict[int, float]) -> Iterator[str]:
        examples = [report.examples for report in self._tally.reports.values()]
        for error, words in {k: v for found in reversed(examples) for k, v in found.items()}.items():
            yield f"{error}, for example: {words.partition(chr(10))[0][:_WORDS]}"
        for number, at_s in lost.items():
            name = self._ids[number]
            yield f"worker {number} ({name}) was lost by {at_s:.1f} s: what it owed counts as errors"
        for name, difference_s in self._clocks.items():
            if abs(difference_s) > _CLOCK_S:
                yield f"the clock of {name} differs by {difference_s:.2f} s, and so do its times"

    def _reported(self, msg: Any, **_: Any) -> None:
        report = report_of(msg.data)
        if report.run != self._runs or msg.node_id not in self._ids:
            return
        if report.state is State.READY:
            self._clocks[msg.node_id] = report.wall_s - time.time()
        self._tally.take(self._ids.index(msg.node_id), report)

    def _raise_fault(self) -> None:
        for number, report in self._tally.reports.items():
            if report.fault:
                raise BenchError(f"worker {number}: {report.fault}")


@contextmanager
def master(host: str, port: int, web_port: int | None, alive: Callable[[], bool]) -> Iterator[Crew]:
    """Listens for workers."""
    environment = Environment(user_classes=[LoadUser])
    runner = environment.create_master_runner(host, port)
    if web_port is not None:
        del sys.argv[1:]  # its page would read our flags as its own
        environment.create_web_ui("127.0.0.1", web_port)
    try:
        yield Crew(runner, alive)
    finally:
        runner.quit()
        if environment.web_ui is not None:
            environment.web_ui.stop()  # type: ignore[no-untyped-call]
