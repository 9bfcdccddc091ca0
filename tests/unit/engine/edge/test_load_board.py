from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.edge.load_board import LoadBoard, is_turn
from tests.paths import ROOT

loads = st.integers(0, 9)


class Instance:
    """An engine with `load` requests, as Triton calls it."""

    def __init__(self, path: Path, instances: int = 2) -> None:
        self.load = 0
        self.board = LoadBoard(path, instances, lambda: self.load)
        self._execute: threading.Thread | None = None

    def take(self) -> None:
        assert not self.busy
        self.load += 1
        self._execute = threading.Thread(target=self.board.wait_turn, daemon=True)
        self._execute.start()

    def end(self, count: int = 1) -> None:
        self.load -= count
        self.board.publish()

    @property
    def busy(self) -> bool:
        return self._execute is not None and self._execute.is_alive()

    def wait(self) -> None:
        """Until Triton could give it a request."""
        if self._execute:
            self._execute.join(30)
        assert not self.busy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "board"


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(30_000):
        if condition():
            return
        threading.Event().wait(0.002)
    raise AssertionError("it never came")


def test_an_instance_with_more_waits_until_the_other_has_as_many(path: Path) -> None:
    a, b = Instance(path), Instance(path)
    for one in (a, b):
        one.take()
        one.wait()
    a.take()
    assert a.busy
    b.take()
    a.wait()
    b.wait()


def give(instances: list[Instance]) -> Instance:
    """A request to an instance that is free, the last one first, as Triton may choose any."""
    eventually(lambda: not all(one.busy for one in instances))
    taker = next(one for one in reversed(instances) if not one.busy)
    taker.take()
    return taker


def joined(path: Path, count: int) -> list[Instance]:
    """Instances with a request each, and free."""
    instances = [Instance(path, count) for _ in range(count)]
    for one in instances:
        one.take()
    for one in instances:
        one.wait()
    return instances


def test_requests_are_spread_evenly(path: Path) -> None:
    instances = joined(path, 3)
    for number in range(4, 16):
        give(instances)
        loads_now = [one.load for one in instances]
        assert max(loads_now) - min(loads_now) <= 1
        assert sum(loads_now) == number


def test_an_instance_whose_turn_it_was_takes_one_request_more_at_most_once_another_is_idle(
    path: Path,
) -> None:
    instances = joined(path, 2)
    for _ in range(6):
        give(instances)
    for one in instances:
        one.wait()
    assert [one.load for one in instances] == [4, 4]
    idle, loaded = instances
    idle.end(4)
    takers = [give(instances) for _ in range(5)]
    assert takers == [loaded, idle, idle, idle, idle]


def test_an_only_instance_never_waits(path: Path) -> None:
    one = Instance(path, 1)
    for _ in range(3):
        one.take()
        one.wait()


def test_instances_of_before_a_reload_do_not_count(path: Path) -> None:
    old = [Instance(path), Instance(path)]
    for one in old:
        one.take()
    for one in old:
        one.wait()
    old[0].end()  # idle, and not unloaded as long as the other answers
    new = [Instance(path), Instance(path)]
    for one in [*new, *new]:
        one.wait()
        one.take()
    for one in new:
        one.wait()
    assert [one.load for one in new] == [2, 2]
    old[1].load = 5
    old[1].take()
    old[1].wait()


def test_an_instance_that_died_does_not_count(path: Path) -> None:
    """Its lock goes with its process, and the record is the next one's."""
    code = (
        "import sys; sys.path[:0] = ['server']; from pathlib import Path\n"
        "from engine.edge.load_board import LoadBoard\n"
        "board = LoadBoard(Path(sys.argv[1]), 2, lambda: 0); board.wait_turn()\n"
        "print('joined', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    root = ROOT
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "joined\n"
        one = Instance(path)
        one.take()
        eventually(lambda: one.board._place == 2)
        assert one.busy
        assert one.board._others() == [(1, 0)]
        other.kill()
        other.wait()
        one.wait()
        assert one.board._others() == [(1, None)]
    restarted = Instance(path)
    restarted.take()
    restarted.wait()
    assert one.board._others() == [(3, 1)]


@given(loads, st.lists(st.none() | loads, max_size=4), st.integers(0, 4))
def test_among_the_living_the_least_loaded_are_free(
    mine: int, others: list[int | None], unjoined: int
) -> None:
    everyone = [mine, *(load for load in others if load is not None)]
    records = list(enumerate(others, start=2))
    assert is_turn(1, mine, records, 1 + len(others) + unjoined) == (mine == min(everyone))


@given(loads, st.lists(loads, min_size=1, max_size=4), st.lists(loads, max_size=4))
def test_only_the_last_to_join_count(mine: int, peers: list[int], before: list[int]) -> None:
    tickets = range(1, len(before) + len(peers) + 2)
    *earlier, my_ticket = list(tickets)[: len(before) + 1]
    later = zip(tickets[len(before) + 1 :], peers, strict=True)
    records: list[tuple[int, int | None]] = [*zip(earlier, before, strict=True), *later]
    assert is_turn(my_ticket, mine, records, len(peers) + 1) == (mine <= min(peers))
    for ticket, load in zip(earlier, before, strict=True):
        others = [(my_ticket, mine), *(record for record in records if record[0] != ticket)]
        assert is_turn(ticket, load, others, len(peers) + 1)


@given(st.lists(loads, min_size=1, max_size=5), st.integers(1, 5))
def test_some_instance_is_always_free(loads_now: list[int], instances: int) -> None:
    records = list(enumerate(loads_now, start=1))
    free = [
        is_turn(ticket, load, [other for other in records if other[0] != ticket], instances)
        for ticket, load in records[-instances:]
    ]
    assert any(free)
