"""A server that answers and workers that wait: runs, one after the other, each with its result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.errors import BenchError
from loadtest.measure import result as results
from loadtest.measure.gauges import Gauges, read_gauges
from loadtest.measure.record import Record, encode_lines
from loadtest.measure.result import Facts, Result, Server, summarise
from loadtest.ports import held_ports
from loadtest.traffic.profile import Profile
from loadtest.traffic.schedule import clipped
from loadtest.users import preflight
from loadtest.users.crew import Collected, Crew, master
from loadtest.users.live import shown
from loadtest.users.plan import Plan, Words
from loadtest.users.preflight import Addresses
from loadtest.users.processes import processes
from loadtest.users.scraper import Scraper
from loadtest.users.stopping import Stopping

# Local workers import Locust and what it needs.
_LOCAL_S = 60.0
_REMOTE_S = 600.0


@dataclass(frozen=True, slots=True)
class Crewing:
    """How many workers, and where they are: processes of ours, or such as come to `host` and `port`."""

    workers: int
    host: str | None
    port: int
    web_port: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the generator: requests open at a time and the wait for them at the end, by each worker."""

    cap: int
    drain_s: float
    connections: int


@dataclass(frozen=True, slots=True)
class Ran:
    """`result` is None where the run ended before anything was measured."""

    records: Sequence[Record]
    result: Result | None
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Session:
    addresses: Addresses
    server: Server
    model: str
    words: dict[str, Words]
    machine: dict[str, Any]
    limits: Limits
    crew: Crew
    stopping: Stopping

    def run(self, profile: Profile) -> Ran:
        with Scraper(self.addresses.metrics) as scraper, shown(profile) as live:
            collected = self.crew.run(profile, self._plan(profile), self.stopping, live.watch)
        gauges, remarks = _gauges(scraper, collected)
        window_s = profile.warmup_s, min(profile.total_s, collected.ended_s)
        if window_s[1] <= window_s[0]:
            return Ran(collected.records, None, collected.interrupted)
        found = summarise(collected.records, self._facts(profile, collected, window_s, gauges))
        more = (*found.doubts, *_remarks(profile, collected), *remarks)
        return Ran(collected.records, replace(found, doubts=more), collected.interrupted)

    def _plan(self, profile: Profile) -> Plan:
        return Plan(
            run=0,
            profile=profile.as_table(),
            worker=0,
            workers=1,
            grpc_url=self.addresses.grpc,
            http_url=self.addresses.http,
            model=self.model,
            salt=time.time_ns(),
            words=self.words,
            cap=self.limits.cap,
            drain_s=self.limits.drain_s,
            connections=self.limits.connections,
        )

    def _facts(
        self, profile: Profile, collected: Collected, window_s: tuple[float, float], gauges: Gauges
    ) -> Facts:
        started = datetime.fromtimestamp(collected.start_epoch_s, UTC).isoformat(timespec="seconds")
        return Facts(profile.as_table(), started, self.machine, self.server, window_s, gauges)


@contextmanager
def session(
    profile: Profile,
    addresses: Addresses,
    model: str,
    tokenizer: Path | None,
    machine: dict[str, Any],
    limits: Limits,
    crewing: Crewing,
    stopping: Stopping,
) -> Iterator[Session]:
    """BenchError where the server or a worker does not come."""
    server = preflight.check(profile, addresses, model)
    words = dict(preflight.words_of(profile, addresses, model, tokenizer))
    with _crew(crewing, stopping) as crew:
        yield Session(addresses, server, model, words, machine, limits, crew, stopping)


@contextmanager
def _crew(crewing: Crewing, stopping: Stopping) -> Iterator[Crew]:
    if crewing.host is not None:
        with master(crewing.host, crewing.port, crewing.web_port, lambda: True) as crew:
            crew.gather(crewing.workers, stopping, _REMOTE_S)
            yield crew
        return
    with (
        held_ports(1) as (port,),
        processes(crewing.workers, port) as workers,
        master("127.0.0.1", port, crewing.web_port, workers.alive) as crew,
    ):
        crew.gather(crewing.workers, stopping, _LOCAL_S)
        yield crew


def store(ran: Ran, folder: Path) -> None:
    """records.jsonl, and result.json where there is a result."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "records.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(encode_lines(ran.records))
    if ran.result is not None:
        (folder / "result.json").write_text(results.encode(ran.result), "utf-8")


def _gauges(scraper: Scraper, collected: Collected) -> tuple[Gauges, tuple[str, ...]]:
    try:
        gauges = read_gauges(scraper.scrapes(collected.start_epoch_s))
    except BenchError as error:
        return {}, (str(error),)
    if scraper.failures:
        return gauges, (f"the metrics could not be read {scraper.failures} times: {scraper.reason}",)
    return gauges, ()


def _remarks(profile: Profile, collected: Collected) -> Iterator[str]:
    yield from collected.remarks
    planned = 1 + max((record.request for record in collected.records), default=-1)
    if cut := clipped(profile, planned):
        yield (
            f"{cut} of {planned} requests were longer than max_context = {profile.max_context} and cut to it:"
            " the load is lighter than its lengths say"
        )
    if collected.interrupted:
        yield f"interrupted after {collected.ended_s:.0f} s of {profile.total_s:.0f}"
    if collected.capped:
        yield (
            f"saturated generator: {collected.capped} requests were not sent, for as many were in flight as"
            " may be (--in-flight); they count as errors"
        )
