"""A master and its workers over real connections. Nobody answers where the load goes: no server is needed."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any

import httpx
import pytest

from loadtest.errors import BenchError
from loadtest.measure.record import decode, encode
from loadtest.ports import HOST, held_ports
from loadtest.traffic.profile import Profile, Protocol
from loadtest.traffic.schedule import schedule
from loadtest.users import master, worker
from loadtest.users.live import Stopping, web
from loadtest.users.master import Crew, listening
from loadtest.users.request import Tape
from loadtest.users.tally import Progress
from loadtest.users.worker import HARD, SOFT, Assignment, Report, State, Words
from tests.unit.loadtest.users.planned import profile

WAIT_S = 30.0


def load(users: int | None = None, **changes: Any) -> Profile:
    """Of unary requests: eight in 0.4 s, of which the first 0.1 s are the warm-up."""
    made = replace(profile(rate_per_s=20, duration_s=0.3, users=users), warmup_s=0.1, **changes)
    return replace(made, mix=(replace(made.mix[0], protocol=Protocol.UNARY),))


def plan(of: Profile, port: int = 1, drain_s: float = 0.0) -> Assignment:
    return Assignment(
        of.as_table(), 0, 1, f"grpc://{HOST}:{port}", f"http://{HOST}:{port}", "smollm2", 7,
        {"smollm2": Words(None, 1.2)}, 100, drain_s, 1,
    )  # fmt: skip


@dataclass
class Played:
    """A worker that says what the test makes it say."""

    link: socket.socket

    def __post_init__(self) -> None:
        self.link.settimeout(WAIT_S)
        self._lines = self.link.makefile("rb")

    def say(self, word: str, content: str) -> None:
        self.link.sendall(f"{word} {content}\n".encode())

    def report(self, state: State, **changes: Any) -> None:
        self.say("report", replace(Report(state, time.time()), **changes).encode())

    def hears(self, word: str) -> Any:
        found, _, content = self._lines.readline().decode().partition(" ")
        assert found == word
        return json.loads(content)


@contextmanager
def crew_of(count: int) -> Iterator[tuple[Crew, list[Played]]]:
    """Workers come one after the other, so that their numbers are known."""
    with listening(HOST, 0) as (crew, port):
        workers = []
        for number in range(count):
            workers.append(Played(socket.create_connection((HOST, port), WAIT_S)))
            workers[-1].say("hello", json.dumps(f"worker-{number}"))
            crew.gather(number + 1, Stopping(), WAIT_S)
        yield crew, workers
        for worker in workers:
            worker.link.close()


@contextmanager
def meanwhile(*works: Any) -> Iterator[None]:
    threads = [Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def unwatched(now_s: float, _progress: Progress) -> None:
    assert now_s < WAIT_S, "the run does not end"


def line(of: Profile, request: int) -> str:
    planned = next(found for found in schedule(of) if found.request == request)
    tape = Tape(planned, "smollm2", planned.at_s or 0.0, "measure")
    tape.sent(planned.at_s or 0.0)
    return encode(tape.record(1.0, "connection"))


@pytest.mark.parametrize("workers", [1, 3])
def test_real_workers_send_the_one_schedule_between_them(workers: int) -> None:
    of = load()
    with listening(HOST, 0) as (crew, port), held_ports(1) as (nobody,):
        works = [lambda: asyncio.run(worker._work(HOST, port))] * workers
        with meanwhile(*works):
            crew.gather(workers, Stopping(), WAIT_S)
            for _ in range(2):  # one run after the other, as in a sweep
                found = crew.run(of, plan(of, nobody), Stopping(), unwatched)
                assert [(r.request, r.intended_s) for r in found.records] == [
                    (planned.request, planned.at_s) for planned in schedule(of)
                ]
                assert {record.error for record in found.records} == {"connection"}
                assert not found.interrupted
                assert found.ended_s == of.total_s
                assert any("no server at" in remark for remark in found.remarks)
            crew.close()


def test_users_of_a_closed_loop_are_shared_between_real_workers() -> None:
    of = load(users=3)
    with listening(HOST, 0) as (crew, port), held_ports(1) as (nobody,):
        works = [lambda: asyncio.run(worker._work(HOST, port))] * 2
        with meanwhile(*works):
            crew.gather(2, Stopping(), WAIT_S)
            found = crew.run(of, plan(of, nobody), Stopping(), unwatched)
            crew.close()
    assert len({record.request for record in found.records}) == len(found.records) > 3
    assert {record.request % 2 for record in found.records} == {0, 1}


def test_a_worker_whose_connection_ends_is_lost_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "_SILENT_S", 2 * WAIT_S)
    of = load()
    with crew_of(2) as (crew, (good, dies)):

        def play() -> None:
            assert [w.hears("plan")["worker"] for w in (good, dies)] == [0, 1]
            good.report(State.READY)
            dies.report(State.READY)
            assert good.hears("go") == dies.hears("go")
            dies.say("record", line(of, 1))
            dies.link.shutdown(socket.SHUT_RDWR)
            for request in range(0, 8, 2):
                good.say("record", line(of, request))
            good.report(State.DONE, begun=4)

        with meanwhile(play):
            found = crew.run(of, plan(of, drain_s=2 * WAIT_S), Stopping(), unwatched)
        assert [record.request for record in found.records] == list(range(8))
        errors = {record.request: record.error for record in found.records}
        assert {number for number, error in errors.items() if error == "worker_lost"} == {3, 5, 7}
        assert any("worker 1 (worker-1) was lost" in remark for remark in found.remarks)


def test_a_real_worker_counts_from_the_moment_that_the_master_names() -> None:
    of, told = load(), []

    async def run() -> float:
        share = worker.Share(plan(of), lambda word, content: told.append((word, time.time(), content)))
        running = asyncio.create_task(share.run())
        while not told:  # READY
            await asyncio.sleep(0.01)
        start_epoch_s = time.time() + 0.5
        share.go.set_result(start_epoch_s)
        await running
        return start_epoch_s

    start_epoch_s = asyncio.run(run())
    ended = [(at, decode(content)) for word, at, content in told if word == "record"]
    assert len(ended) == 8
    for at, record in ended:
        assert at - start_epoch_s == pytest.approx(record.end_s, abs=0.1)
        assert record.end_s >= record.sent_s >= record.intended_s


def test_without_a_worker_there_is_no_further_run() -> None:
    of = load()
    with crew_of(1) as (crew, (dies,)):

        def play() -> None:
            dies.hears("plan")
            dies.report(State.READY)
            dies.hears("go")
            dies.link.shutdown(socket.SHUT_RDWR)

        with meanwhile(play):
            found = crew.run(of, plan(of), Stopping(), unwatched)
        assert {record.error for record in found.records} == {"worker_lost"}
        with pytest.raises(BenchError, match="no worker is left"):
            crew.run(of, plan(of), Stopping(), unwatched)


def test_a_worker_that_gives_up_ends_the_run_with_its_words() -> None:
    of = load()
    with crew_of(1) as (crew, (faulty,)):

        def play() -> None:
            faulty.hears("plan")
            faulty.report(State.DONE, fault="trace.csv: cannot be read")

        with meanwhile(play), pytest.raises(BenchError, match=r"worker 0: trace\.csv: cannot be read"):
            crew.run(of, plan(of), Stopping(), unwatched)


def test_a_real_worker_tells_what_is_wrong_with_its_plan() -> None:
    of = load()
    broken = {**of.as_table(), "arrivals": {"kind": "trace", "file": "absent.csv"}}
    with listening(HOST, 0) as (crew, port), meanwhile(lambda: asyncio.run(worker._work(HOST, port))):
        crew.gather(1, Stopping(), WAIT_S)
        with pytest.raises(BenchError, match=r"worker 0: absent\.csv: cannot be read"):
            crew.run(of, replace(plan(of), profile=broken), Stopping(), unwatched)
        crew.close()


def test_a_worker_that_ends_before_the_run_ends_it() -> None:
    of = load()
    with crew_of(1) as (crew, (dies,)):

        def play() -> None:
            dies.hears("plan")
            dies.link.shutdown(socket.SHUT_RDWR)

        with meanwhile(play), pytest.raises(BenchError, match="did not get ready"):
            crew.run(of, plan(of), Stopping(), unwatched)


def test_a_stop_reaches_the_workers_and_a_clock_that_differs_is_a_warning() -> None:
    of, signals = load(), Stopping()
    with crew_of(1) as (crew, (played,)):

        def play() -> None:
            played.hears("plan")
            played.report(State.READY, wall_s=time.time() + 7.5)
            played.hears("go")
            signals.add()
            assert played.hears("stop") == SOFT
            signals.add()
            assert played.hears("stop") == HARD
            played.report(State.DONE, capped=2)

        with meanwhile(play):
            found = crew.run(of, plan(of, drain_s=WAIT_S), signals, unwatched)
        assert found.interrupted
        assert found.capped == 2
        (remark,) = found.remarks
        assert remark.startswith("the clock of worker-0 differs by 7.")


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b"report {}\n", b"record {}\n"])
def test_a_connection_that_is_no_worker_is_closed(said: bytes) -> None:
    with listening(HOST, 0) as (crew, port), socket.create_connection((HOST, port), WAIT_S) as stranger:
        stranger.sendall(said)
        stopping = Stopping()

        def play() -> None:
            assert stranger.recv(1) == b""
            stopping.add()

        with meanwhile(play), pytest.raises(KeyboardInterrupt):
            crew.gather(1, stopping, WAIT_S)


def test_a_port_that_is_taken_is_named() -> None:
    with (
        listening(HOST, 0) as (_, port),
        pytest.raises(BenchError, match=f"port {port} of {HOST}"),
        listening(HOST, port),
    ):
        pass


def test_a_silent_worker_is_lost_and_one_that_reports_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "_SILENT_S", 0.5)
    of = load()
    with crew_of(2) as (crew, (silent, good)):

        def play() -> None:
            for each in (silent, good):
                each.hears("plan")
                each.report(State.READY)
            good.hears("go")

        def watch(now_s: float, progress: Progress) -> None:
            """The good worker is done when the other one has been silent for too long."""
            unwatched(now_s, progress)
            if now_s < 0.7:
                good.report(State.RUNNING)
                return
            for request in range(1, 8, 2):
                good.say("record", line(of, request))
            good.report(State.DONE)

        with meanwhile(play):
            found = crew.run(of, plan(of, drain_s=2 * WAIT_S), Stopping(), watch)
    lost = {record.request for record in found.records if record.error == "worker_lost"}
    assert lost == {0, 2, 4, 6}


def test_the_page_of_a_run_shows_its_last_words_as_text() -> None:
    with held_ports(1) as (port,), web(port) as lines:
        lines[:] = ["chat: measuring", "<b>3 begun</b>"]
        text = httpx.get(f"http://{HOST}:{port}/").text
    assert "chat: measuring\n&lt;b&gt;3 begun&lt;/b&gt;" in text
    with web(port), pytest.raises(BenchError, match=f"--web {port}: Address already in use"):
        web(port).__enter__()
