"""A server that answers and workers that wait: runs, one after the other, each with its result; and the
options that `loadtest.load` and `loadtest.sweep` share."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.artifacts import MODEL, ROOT
from loadtest.errors import BenchError, TrafficError
from loadtest.machine import machine_facts
from loadtest.measure import result as results
from loadtest.measure.gauges import Gauges, read_gauges
from loadtest.measure.record import Record, encode_lines
from loadtest.measure.result import Facts, Result, ServerFacts, summarise
from loadtest.options import decimal, positive
from loadtest.ports import HOST
from loadtest.traffic.profile import Profile, Protocol, load_profile
from loadtest.traffic.schedule import clipped
from loadtest.users.live import Stopping, shown, web
from loadtest.users.master import Collected, Crew, listening, processes
from loadtest.users.server import Addresses, addresses_of, check, fitted, scraping, words_of
from loadtest.users.worker import Assignment, Words

PROFILES = ROOT / "loadtest" / "profiles"
DEFAULT_PROFILE = "chat"
DEFAULT_URL = "127.0.0.1:8001"
MASTER_PORT = 5557
WEB_PORT = 8089
_SECONDS = decimal("of seconds of at least 0", lambda seconds: seconds >= 0)
# Local workers import numpy, gRPC and what they need.
_LOCAL_S, _REMOTE_S = 60.0, 600.0


@dataclass(frozen=True, slots=True)
class Ran:
    """`result` is None where the run ended before anything was measured."""

    records: Sequence[Record]
    result: Result | None
    interrupted: bool

    def store(self, folder: Path) -> None:
        """records.jsonl, and result.json where there is a result."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "records.jsonl").open("w", encoding="utf-8") as lines:
            lines.writelines(encode_lines(self.records))
        if self.result is not None:
            (folder / "result.json").write_text(results.encode(self.result), "utf-8")


@dataclass(frozen=True, slots=True)
class Session:
    """`profile` is the one that was asked for, with no longer a context than the server's models have."""

    options: argparse.Namespace
    addresses: Addresses
    server: ServerFacts
    profile: Profile
    words: Mapping[str, Words]
    machine: Mapping[str, Any]
    crew: Crew
    stopping: Stopping
    page: list[str]

    def run(self, profile: Profile) -> Ran:
        plan = Assignment(
            profile=profile.as_table(),
            worker=0,
            workers=1,
            grpc_url=self.addresses.grpc,
            http_url=self.addresses.http,
            model=self.options.model,
            salt=time.time_ns(),
            words=self.words,
            cap=self.options.in_flight,
            drain_s=self.options.drain,
            connections=self.options.connections,
        )
        with scraping(self.addresses.metrics) as scrapes, shown(profile, self.page) as watch:
            collected = self.crew.run(profile, plan, self.stopping, watch)
        window_s = profile.warmup_s, min(profile.total_s, collected.ended_s)
        if window_s[1] <= window_s[0]:
            return Ran(collected.records, None, collected.interrupted)
        gauges: Gauges = {}
        remarks = list(_remarks(profile, collected))
        if scrapes is not None:
            try:
                gauges = read_gauges(scrapes.since(collected.start_epoch_s))
            except BenchError as error:
                remarks.append(str(error))
            if scrapes.failures:
                remarks.append(f"the metrics could not be read {scrapes.failures} times: {scrapes.reason}")
        started = datetime.fromtimestamp(collected.start_epoch_s, UTC).isoformat(timespec="seconds")
        facts = Facts(profile.as_table(), started, self.machine, self.server, window_s, gauges)
        found = summarise(collected.records, facts)
        found = replace(found, doubts=(*found.doubts, *remarks))
        return Ran(collected.records, found, collected.interrupted)


@contextmanager
def session(options: argparse.Namespace, profile: Profile, stopping: Stopping) -> Iterator[Session]:
    """BenchError where the server or a worker does not come."""
    machine = machine_facts()  # its load average is that of the minute before
    addresses = addresses_of(options.url or DEFAULT_URL, options.http_url, options.metrics_url)
    server = check(profile, addresses, options.model)
    profile = fitted(profile, addresses, options.model, say)
    words = words_of(profile, addresses, options.model, options.tokenizer)
    with _crew(options, stopping) as crew, web(options.web) as page:
        yield Session(options, addresses, server, profile, words, machine, crew, stopping, page)


@contextmanager
def _crew(options: argparse.Namespace, stopping: Stopping) -> Iterator[Crew]:
    """Workers that come from elsewhere, or processes of ours."""
    if options.master:
        with listening(options.master_bind_host, options.master_port) as (crew, _):
            crew.gather(options.expect_workers, stopping, _REMOTE_S)
            yield crew
        return
    with listening(HOST, 0) as (crew, port), processes(options.processes, port) as alive:
        try:
            crew.gather(options.processes, stopping, _LOCAL_S, alive)
            yield crew
        finally:
            crew.close()  # the processes wait for that


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


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of a run; --worker is load's own."""
    known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.toml")))
    add = parser.add_argument_group("the load").add_argument
    add("--profile", default=DEFAULT_PROFILE, metavar="NAME|FILE", help=f"one of {known}, or a TOML file")
    add("--seed", type=int, metavar="N", help="another schedule of the same profile")
    add("--protocol", choices=[p.value for p in Protocol], help="for every request, instead of the profile's")
    add = parser.add_argument_group("the server").add_argument
    add("--url", help=f"gRPC, or http://...; default: {DEFAULT_URL}")
    add("--http-url", metavar="URL", help="default: the port below that of gRPC")
    add("--metrics-url", metavar="URL", help="default: the port above that of gRPC; none: no gauges")
    add("--model", default=MODEL, help="where the profile names none; default: %(default)s")
    add("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json, where the model was not built here")
    add = parser.add_argument_group("the generator").add_argument
    add("--processes", type=positive, default=1, metavar="N", help="workers on this machine; default: 1")
    add("--master", action="store_true", help="wait for workers of other machines instead")
    add("--expect-workers", type=positive, metavar="N", help="with --master: how many")
    add("--master-bind-host", default="*", metavar="HOST", help="with --master; default: every interface")
    add("--master-port", type=_port, default=MASTER_PORT, metavar="PORT", help="default: %(default)s")
    add("--in-flight", type=positive, default=2000, metavar="N", help="open requests a worker may have")
    add("--drain", type=_SECONDS, default=60.0, metavar="S", help="wait for open requests; default: 60")
    add("--connections", type=positive, default=4, metavar="N", help="gRPC connections a worker; default: 4")
    web_help = f"progress as a page on the loopback interface; port {WEB_PORT} by default"
    add("--web", type=_port, nargs="?", const=WEB_PORT, metavar="PORT", help=web_help)
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the results; default: runs/TIME-PROFILE")


def profile_of(options: argparse.Namespace) -> Profile:
    """The profile as the options that load and sweep share change it. TrafficError for such as do not fit."""
    if options.master and options.expect_workers is None:
        raise TrafficError("--master: needs --expect-workers, how many will come")
    if options.expect_workers is not None and not options.master:
        raise TrafficError("--expect-workers: needs --master; --processes are workers of this machine")
    name, path = options.profile, PROFILES / f"{options.profile}.toml"
    if name.endswith(".toml") or "/" in name:
        path = Path(name).resolve()
    elif not path.is_file():
        known = ", ".join(sorted(found.stem for found in PROFILES.glob("*.toml")))
        raise TrafficError(f"--profile {name}: must be one of {known}, or the path of a TOML file")
    profile = load_profile(path)
    if options.protocol is None:
        return profile
    protocol = Protocol(options.protocol)
    mix = (replace(entry, protocol=protocol) for entry in profile.mix)
    if protocol is Protocol.UNARY:  # has no stream to leave
        mix = (replace(entry, disconnect_after_tokens=None) for entry in mix)
    return replace(profile, mix=tuple(mix))


def folder_of(options: argparse.Namespace, name: str, result: str) -> Path:
    """Where the results go; TrafficError where there are some."""
    time = datetime.now(UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    folder: Path = options.out or ROOT / "runs" / f"{time}-{name}"
    if (folder / result).exists():
        raise TrafficError(f"--out {folder}: has a {result} already; name another folder")
    if folder.exists() and not folder.is_dir():
        raise TrafficError(f"--out {folder}: is no folder")
    return folder


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text}, must be a port from 1 to 65535")
    return int(text)
