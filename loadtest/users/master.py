"""The master: workers connect to it, it sends them a plan, and collects their records.

worker.py describes the lines that they send each other.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from loadtest.artifacts import ROOT
from loadtest.errors import BenchError
from loadtest.launched import die_with_us
from loadtest.measure.record import Record, decode
from loadtest.ports import HOST
from loadtest.traffic.profile import Profile
from loadtest.users.live import Stopping
from loadtest.users.tally import Progress, Tally, owed
from loadtest.users.worker import HARD, MAX_LINE, SOFT, Assignment, State, report_of

# From the last worker's READY to the first request: the message must have come to all of them.
_LEAD_S = 0.5
_READY_S = 60.0
# After the drain, for the last records to come.
_GRACE_S = 15.0
_POLL_S = 0.1
# Workers report twice a second.
_SILENT_S = 5.0
# Of an error's text.
_WORDS = 200
# The time that a line takes is part of the difference between two clocks.
_CLOCK_S = 0.25
# For a worker to end by itself.
_STOP_S = 5

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


@dataclass(eq=False, slots=True)
class Peer:
    """A worker's connection. `heard_s` is when its last line came, `clock_s` by how much its clock is
    ahead."""

    connection: socket.socket
    name: str = ""
    heard_s: float = field(default_factory=time.monotonic)
    clock_s: float = 0.0
    is_gone: bool = False

    def tell(self, word: str, content: Any) -> None:
        with suppress(OSError):  # its lines end too: `_read` sees that
            self.connection.sendall(f"{word} {json.dumps(content)}\n".encode())


def _end(link: socket.socket) -> None:
    """The thread that waits at it closes it."""
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


class Crew:
    """All workers that have said hello. Each connection has a thread that reads; the lines are taken in the
    thread that calls these methods."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._lines: SimpleQueue[tuple[Peer, bytes]] = SimpleQueue()
        self._peers: list[Peer] = []
        self._team: list[Peer] = []
        self._tally = Tally()
        Thread(target=self._accept, name="accept", daemon=True).start()

    def gather(
        self, expect: int, stopping: Stopping, waiting_s: float, alive: Callable[[], bool] = lambda: True
    ) -> None:
        """Waits for `expect` workers. BenchError when they do not come in time, or are not `alive` any
        more."""
        deadline = time.monotonic() + waiting_s
        while len(self._peers) < expect:
            stopping.check()
            if not alive():
                raise BenchError("a worker ended before the run began; its error is above")
            if time.monotonic() > deadline:
                found = len(self._peers)
                raise BenchError(f"{found} of {expect} workers have come within {waiting_s:.0f} s")
            self._listen()

    def run(self, profile: Profile, plan: Assignment, stopping: Stopping, watch: Watch) -> Collected:
        """`plan` is for all workers; their numbers are filled in. BenchError when a worker could not."""
        self._tally, self._team = Tally(), list(self._peers)
        if not self._team:
            raise BenchError("no worker is left; their errors are above, or on their own terminals")
        for number, peer in enumerate(self._team):
            peer.tell("plan", asdict(replace(plan, worker=number, workers=len(self._team))))
        deadline = time.monotonic() + _READY_S
        while not self._tally.are(State.READY, len(self._team)):
            stopping.check()
            self._raise_fault()
            if time.monotonic() > deadline or any(peer.is_gone for peer in self._team):
                raise BenchError("a worker did not get ready; its error is above, or on its own terminal")
            self._listen()
        return self._collect(profile, plan, stopping, watch)

    def close(self) -> None:
        """Workers end when their connection does."""
        for link in (self._listener, *(peer.connection for peer in self._peers)):
            _end(link)

    def _collect(self, profile: Profile, plan: Assignment, stopping: Stopping, watch: Watch) -> Collected:
        start, zero = time.time() + _LEAD_S, time.monotonic() + _LEAD_S
        for peer in self._team:
            peer.heard_s = zero
            peer.tell("go", start)
        ended_s, signals = profile.total_s, 0
        lost: dict[int, float] = {}
        reports = self._tally.reports
        while not all(n in lost or reports[n].state is State.DONE for n in range(len(self._team))):
            self._listen()
            now_s = time.monotonic() - zero
            self._raise_fault()
            if stopping.count > signals:
                ended_s = min(ended_s, now_s) if not signals else ended_s
                signals = stopping.count
                for peer in self._team:
                    peer.tell("stop", SOFT if signals == 1 else HARD)
            self._note_lost(lost, now_s, last=now_s > ended_s + plan.drain_s + _GRACE_S)
            watch(now_s, self._tally.progress(now_s))
        seen = {record.request for record in self._tally.records}
        for number, at_s in lost.items():
            _end(self._team[number].connection)  # what it may still send belongs to this run
            for record in owed(profile, plan.model, number, len(self._team), at_s, ended_s, seen):
                self._tally.add(record)
        return Collected(
            records=tuple(sorted(self._tally.records, key=lambda record: record.intended_s)),
            start_epoch_s=start,
            ended_s=max(ended_s, 0.0),
            interrupted=signals > 0,
            capped=sum(report.capped for report in reports.values()),
            remarks=tuple(self._remarks(lost)),
        )

    def _note_lost(self, lost: dict[int, float], now_s: float, *, last: bool) -> None:
        """A worker that was silent and sends again is not lost; at the `last` moment all others are."""
        for number, peer in enumerate(self._team):
            silent = time.monotonic() - peer.heard_s > _SILENT_S
            if self._tally.reports[number].state is State.DONE or not (peer.is_gone or silent or last):
                lost.pop(number, None)
            else:
                lost.setdefault(number, now_s)

    def _remarks(self, lost: dict[int, float]) -> Iterator[str]:
        examples = [report.examples for report in self._tally.reports.values()]
        for error, words in {k: v for found in reversed(examples) for k, v in found.items()}.items():
            yield f"{error}, for example: {words.partition(chr(10))[0][:_WORDS]}"
        for number, at_s in lost.items():
            lost_one = f"worker {number} ({self._team[number].name}) was lost by {at_s:.1f} s"
            yield f"{lost_one}: its requests without a record count as errors"
        for peer in self._team:
            if abs(peer.clock_s) > _CLOCK_S:
                yield f"the clock of {peer.name} differs by {peer.clock_s:.2f} s, and so do its times"

    def _raise_fault(self) -> None:
        for number, report in self._tally.reports.items():
            if report.fault:
                raise BenchError(f"worker {number}: {report.fault}")

    def _accept(self) -> None:
        with self._listener, suppress(OSError):  # the listener has ended
            while True:
                connection, _ = self._listener.accept()
                Thread(target=self._read, args=(Peer(connection),), name="worker", daemon=True).start()

    def _read(self, peer: Peer) -> None:
        """The last line of a connection is an empty one."""
        with peer.connection, suppress(OSError), peer.connection.makefile("rb") as lines:
            while line := lines.readline(MAX_LINE):
                peer.heard_s = time.monotonic()
                self._lines.put((peer, line))
        self._lines.put((peer, b""))

    def _listen(self) -> None:
        """Takes the lines that come within _POLL_S."""
        deadline = time.monotonic() + _POLL_S
        with suppress(Empty):
            while (left_s := deadline - time.monotonic()) > 0:
                peer, line = self._lines.get(timeout=left_s)
                try:
                    self._take(peer, line)
                except (ValueError, TypeError, KeyError, BenchError):  # not a worker of ours
                    _end(peer.connection)

    def _take(self, peer: Peer, line: bytes) -> None:
        word, _, content = line.decode().partition(" ")
        if not word:
            peer.is_gone = True
            if peer in self._peers:
                self._peers.remove(peer)
        elif word == "hello":
            peer.name = str(json.loads(content))
            self._peers.append(peer)
        elif peer not in self._team:
            raise ValueError(word)
        elif word == "record":
            self._tally.add(decode(content))
        elif word == "report":
            report = report_of(json.loads(content))
            if report.state is State.READY:
                peer.clock_s = report.wall_s - time.time()
            self._tally.reports[self._team.index(peer)] = report


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[Crew, int]]:
    """A master for workers that come to `host` ("*" for every interface); 0 takes a free port."""
    try:
        if host == "*" and socket.has_dualstack_ipv6():
            listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server(("" if host == "*" else host, port), family=family)
    except OSError as error:
        raise BenchError(f"port {port} of {host} cannot be listened on: {error}") from error
    crew = Crew(listener)
    try:
        yield crew, int(listener.getsockname()[1])
    finally:
        crew.close()


@contextmanager
def processes(count: int, port: int) -> Iterator[Callable[[], bool]]:
    """Starts `count` workers of the master on that port; yields a function that says whether all are
    alive."""
    command = [sys.executable, "-m", "loadtest.load", "--worker"]
    command += ["--master-host", HOST, "--master-port", f"{port}"]
    # Sessions of their own: a Ctrl-C goes to the master, which stops the workers.
    found = [
        subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=die_with_us)  # noqa: PLW1509
        for _ in range(count)
    ]
    try:
        yield lambda: all(process.poll() is None for process in found)
    finally:
        for process in found:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
