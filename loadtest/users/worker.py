"""A worker: receives the master's plan, sends its share of the schedule on time, and reports each request.

Master and worker send each other lines, each a word and JSON. To a worker: `plan`, `go` (the run's zero on
the wall clock), `stop` (SOFT or HARD). To the master: `hello` (a name), `record` (one request, when it has
ended), `report` (the counts so far, twice a second).

One asyncio loop does everything. What delays a timestamp most is a record's line, 1 µs for each of its
chunks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from halimede.errors import HalimedeError
from halimede.target import parse_target
from halimede.timeouts import with_grace
from loadtest.errors import BenchError
from loadtest.measure.record import Record, encode
from loadtest.traffic.arrivals import Closed
from loadtest.traffic.profile import Profile, Protocol, profile_of
from loadtest.traffic.prompts import PromptWriter, TokenizerFile
from loadtest.traffic.schedule import Planned, schedule, share_of
from loadtest.users.offering import Offering
from loadtest.users.request import (
    INTERRUPTED,
    TIMEOUT,
    UNFINISHED,
    Sender,
    Tape,
    ask_of,
    error_class,
    phase_of,
)
from loadtest.users.senders import GrpcSender, HttpSender

# How to stop: begin no more requests, or end those that are open too.
SOFT, HARD = "soft", "hard"
REPORT_S = 0.5
# To the first connection with the server.
_CONNECT_S = 5.0
# A master may come later than its workers.
_MASTER_S, _RETRY_S = 300.0, 0.5
# A connection whose other end is silent for so long is broken.
_BROKEN_S = 60
MAX_LINE = 2**26


class State(Enum):
    READY = "ready"  # waits for `go`
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Words:
    """How prompts for a model are written: by the tokenizer in that file where the worker has it, else by the
    number of tokens that a word came to when the server was asked."""

    tokenizer: str | None
    tokens_per_word: float

    def writer(self, salt: int) -> PromptWriter:
        if self.tokenizer and Path(self.tokenizer).is_file():
            return PromptWriter(TokenizerFile(Path(self.tokenizer)), salt)
        return PromptWriter(None, salt, self.tokens_per_word)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One worker's part of a run. `salt` makes the prompts of this run its own. At most `cap` requests may be
    open at a time; after `drain_s` those that still are end as errors."""

    profile: Mapping[str, Any]
    worker: int
    workers: int
    grpc_url: str
    http_url: str
    model: str
    salt: int
    words: Mapping[str, Words]
    cap: int
    drain_s: float
    connections: int


@dataclass(frozen=True, slots=True)
class Report:
    """Counts so far: requests `begun`, `open` now, not sent as the cap was reached, and tokens that have
    come, those of open requests too. `wall_s` is the worker's clock; `fault` says why it gave up."""

    state: State
    wall_s: float
    begun: int = 0
    open: int = 0
    capped: int = 0
    tokens: int = 0
    examples: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None

    def encode(self) -> str:
        return json.dumps({**asdict(self), "state": self.state.value})


def report_of(content: Mapping[str, Any]) -> Report:
    return Report(**{**content, "state": State(content["state"])})


class Share:
    """A worker's share of one run; `tell` sends a word and its JSON to the master."""

    # Once the plan is read.
    _profile: Profile
    _writers: Mapping[str, PromptWriter]
    _senders: Mapping[Protocol, Sender]

    def __init__(self, plan: Assignment, tell: Callable[[str, str], None]) -> None:
        self.go: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._plan = plan
        self._tell = tell
        self._zero_s = time.monotonic()
        self._users: list[asyncio.Task[None]] = []
        self._offering = Offering(
            self._perform,
            refuse=lambda planned, at_s, error: self._tape(planned, at_s).record(self._now(), error),
            take=lambda record: tell("record", encode(record)),
            now=self._now,
            cap=plan.cap,
        )
        self._tokens = 0
        self._examples: dict[str, str] = {}

    async def run(self) -> None:
        """Ends with the report DONE, whatever happens: the master would wait for it."""
        fault = None
        try:
            await self._run()
        except BenchError as error:
            fault = str(error)
        except Exception:  # noqa: BLE001  a bug here must reach the master
            fault = traceback.format_exc()
        self._report(State.DONE, fault)

    def stop(self, how: str) -> None:
        """Begins no more requests; HARD ends those that are open, too."""
        for user in self._users:
            user.cancel()
        if how == HARD:
            self._offering.cut(INTERRUPTED)

    async def _run(self) -> None:
        plan, offering = self._plan, self._offering
        self._profile = profile = profile_of(plan.profile)
        requests = schedule(profile, plan.worker, plan.workers)
        self._writers = {model: words.writer(plan.salt) for model, words in plan.words.items()}
        async with _connected({entry.protocol for entry in profile.mix}, plan) as self._senders:
            self._report(State.READY)
            # From here on the monotonic clock counts; on the wall clock the hosts must agree.
            start_epoch_s = await self.go
            self._zero_s = time.monotonic() + start_epoch_s - time.time()
            if isinstance(arrivals := profile.arrivals, Closed):
                share = share_of(arrivals.users, plan.worker, plan.workers)
                turns = (offering.by_turns(requests, arrivals.think_s, profile.total_s) for _ in range(share))
                self._users = [asyncio.create_task(turn) for turn in turns]
            else:
                self._users = [asyncio.create_task(offering.on_time(requests))]
            reporting = asyncio.create_task(self._keep_reporting())
            try:
                for ended in await asyncio.gather(*self._users, return_exceptions=True):
                    if isinstance(ended, Exception):
                        raise ended
                await offering.drain(plan.drain_s, UNFINISHED)
            finally:
                reporting.cancel()

    async def _perform(self, planned: Planned, intended_s: float) -> Record:
        """Swallows its cancellation, whose message becomes the error: no request is without its record."""
        tape, kind, error = self._tape(planned, intended_s), planned.kind, None
        try:
            async with asyncio.timeout(with_grace(kind.timeout_s)):
                ask = ask_of(planned, self._writers[tape.model].write(planned), tape.model)
                stream = self._senders[kind.protocol].send(ask, lambda: tape.sent(self._now()))
                async with aclosing(stream) as chunks:
                    async for chunk in chunks:
                        self._tokens += tape.take(chunk, self._now())
                        if tape.leaves:
                            break
        except TimeoutError:
            error = TIMEOUT
        except asyncio.CancelledError as cut:
            error = str(cut)
        except HalimedeError as fault:
            error = error_class(fault)
            if kind.bad is None:
                self._examples.setdefault(error, str(fault))
        return tape.record(self._now(), error)

    def _tape(self, planned: Planned, intended_s: float) -> Tape:
        name = planned.kind.model or self._plan.model
        return Tape(planned, name, intended_s, phase_of(self._profile, intended_s))

    def _now(self) -> float:
        return time.monotonic() - self._zero_s

    async def _keep_reporting(self) -> None:
        while True:
            self._report(State.RUNNING)
            await asyncio.sleep(REPORT_S)

    def _report(self, state: State, fault: str | None = None) -> None:
        counts = self._offering.begun, self._offering.open, self._offering.capped, self._tokens
        self._tell("report", Report(state, time.time(), *counts, self._examples, fault).encode())


@asynccontextmanager
async def _connected(protocols: set[Protocol], plan: Assignment) -> AsyncIterator[dict[Protocol, Sender]]:
    """The senders that the mix needs. Where no server answers, each request becomes an error."""
    made: dict[Protocol, Sender] = {}
    for protocol in protocols:
        if protocol is Protocol.GRPC:
            made[protocol] = GrpcSender(parse_target(plan.grpc_url), plan.connections)
        else:
            made[protocol] = HttpSender(parse_target(plan.http_url))
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                for sender in made.values():
                    await sender.connect()
        yield made
    finally:
        for sender in made.values():
            await sender.close()


def work(master_host: str, master_port: int) -> int:
    """Serves a master until it quits; the exit code. BenchError when none comes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # the master misses us, and says so
    return asyncio.run(_work(master_host, master_port))


async def _work(host: str, port: int) -> int:
    print(f"waiting for the master at {host}:{port}", file=sys.stderr, flush=True)
    reader, writer = await _master(host, port)

    def tell(word: str, content: str) -> None:
        writer.write(f"{word} {content}\n".encode())

    tell("hello", json.dumps(f"{socket.gethostname()}/{os.getpid()}"))
    share, running = None, None
    with suppress(OSError):
        while line := await reader.readline():
            word, _, content = line.decode().partition(" ")
            if word == "plan":
                found = json.loads(content)
                words = {model: Words(**how) for model, how in found["words"].items()}
                share = Share(Assignment(**{**found, "words": words}), tell)
                running = asyncio.create_task(share.run())
            elif share is not None and word == "go":
                share.go.set_result(json.loads(content))
            elif share is not None and word == "stop":
                share.stop(json.loads(content))
    with suppress(OSError):
        writer.close()
        await writer.wait_closed()
    if running is not None and not running.done():
        raise BenchError(f"the master at {host}:{port} is gone; what was measured here is lost")
    return 0


async def _master(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    deadline = time.monotonic() + _MASTER_S
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port, limit=MAX_LINE)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise BenchError(f"no master at {host}:{port} within {_MASTER_S:.0f} s: {error}") from error
        await asyncio.sleep(_RETRY_S)
    link = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _BROKEN_S // 2)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _BROKEN_S)
    return reader, writer
