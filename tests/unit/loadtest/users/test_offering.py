from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.measure.record import Record
from loadtest.traffic.schedule import Planned
from loadtest.users.offering import Offering
from loadtest.users.request import Tape
from tests.unit.loadtest.users.planned import planned

times = st.lists(st.floats(0, 50), max_size=12).map(sorted)


class Clock:
    """Time that passes only when everybody sleeps: the earliest sleeper wakes first."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_s + seconds, next(self._numbers), wake))
        await wake

    async def run(self, work: asyncio.Future[None]) -> None:
        while not work.done():
            for _ in range(8):  # everybody goes as far as they can
                await asyncio.sleep(0)
            self._sleepers = [s for s in self._sleepers if not s[2].done()]
            if self._sleepers and not work.done():
                at_s, _, wake = min(self._sleepers, key=lambda sleeper: sleeper[:2])
                self.now_s = at_s
                wake.set_result(None)


class Stage:
    """An Offering whose requests take so long each, by the clock."""

    def __init__(self, takes_s: Callable[[Planned], float], cap: int = 100) -> None:
        self.clock = Clock()
        self.records: list[Record] = []
        self.most = 0
        self._takes_s = takes_s
        self.offering = Offering(
            self._attempt, self._refuse, self.records.append, self.clock.now, self.clock.sleep, cap
        )

    async def _attempt(self, plan: Planned, intended_s: float) -> Record:
        self.most = max(self.most, self.offering.open)
        tape, error = Tape(plan, "m", intended_s, "measure"), None
        tape.sent(self.clock.now())
        try:
            await self.clock.sleep(self._takes_s(plan))
        except asyncio.CancelledError as cut:
            error = str(cut)
        return tape.record(self.clock.now(), error)

    def _refuse(self, plan: Planned, intended_s: float, error: str) -> Record:
        return Tape(plan, "m", intended_s, "measure").record(self.clock.now(), error)

    def play(self, script: Callable[[Stage], asyncio.Future[None]]) -> list[Record]:
        async def run() -> None:
            await self.clock.run(script(self))

        asyncio.run(run())
        return sorted(self.records, key=lambda record: record.request)


def at(moments: list[float]) -> Iterator[Planned]:
    return (planned(number, at_s) for number, at_s in enumerate(moments))


def opened(moments: list[float]) -> Callable[[Stage], asyncio.Future[None]]:
    async def offer(stage: Stage) -> None:
        await stage.offering.on_time(at(moments))
        while stage.offering.open:
            await stage.clock.sleep(50)

    return lambda stage: asyncio.ensure_future(offer(stage))


@given(times, st.floats(0, 1000))
def test_in_an_open_loop_requests_begin_when_they_are_due_however_slow_the_server_is(
    moments: list[float], takes_s: float
) -> None:
    records = Stage(lambda _: takes_s).play(opened(moments))
    assert [record.intended_s for record in records] == moments
    assert [record.sent_s for record in records] == pytest.approx(moments)


def test_a_stall_of_the_server_is_in_the_latency_of_all_that_were_due_in_it() -> None:
    """The server stands still from 2 s to 6 s; each request takes 0.1 s of its work."""

    def takes_s(plan: Planned) -> float:
        assert plan.at_s is not None
        return 6.1 - plan.at_s if 2 <= plan.at_s < 6 else 0.1

    records = Stage(takes_s).play(opened([number / 2 for number in range(20)]))
    late = {record.intended_s: record.e2e_s for record in records if record.e2e_s > 0.2}
    assert late == pytest.approx({number / 2: 6.1 - number / 2 for number in range(4, 12)})


@given(times, st.integers(1, 5))
def test_no_more_are_open_than_the_cap_and_those_beyond_it_are_errors_that_are_counted(
    moments: list[float], cap: int
) -> None:
    stage = Stage(lambda _: 10.0, cap)
    records = stage.play(opened(moments))
    refused = [record for record in records if record.error == "not_sent"]
    assert [record.request for record in records] == list(range(len(moments)))
    assert stage.most <= cap
    assert stage.offering.capped == len(refused) == len(moments) - stage.offering.begun
    assert not any(record.expected for record in refused)


@given(st.integers(1, 4), st.floats(0.5, 3), st.floats(0, 3))
def test_in_a_closed_loop_each_user_has_one_request_at_a_time(
    users: int, takes_s: float, think_s: float
) -> None:
    end_s = 8.0

    async def serve(stage: Stage) -> None:
        plans = (planned(number, None) for number in count())
        turns = [stage.offering.by_turns(plans, think_s, end_s) for _ in range(users)]
        await asyncio.gather(*turns)

    stage = Stage(lambda _: takes_s)
    records = stage.play(lambda stage: asyncio.ensure_future(serve(stage)))
    assert stage.most == users
    assert all(record.intended_s == record.sent_s < end_s for record in records)
    rounds = {record.intended_s for record in records}
    assert len(records) == users * len(rounds)
    assert len(rounds) == pytest.approx(end_s / (takes_s + think_s), abs=1.01)


def test_what_is_open_when_the_drain_ends_is_an_error_of_its_own() -> None:
    async def offer(stage: Stage) -> None:
        await stage.offering.on_time(at([0.0, 1.0, 2.0]))
        await stage.offering.drain(0.0, "unfinished")

    records = Stage(lambda plan: 0.5 if plan.request < 2 else 100).play(
        lambda stage: asyncio.ensure_future(offer(stage))
    )
    assert [record.error for record in records] == ["incomplete", "incomplete", "unfinished"]


def test_stopping_begins_no_more_and_leaves_the_open_ones_alone() -> None:
    async def offer(stage: Stage) -> None:
        offering = asyncio.ensure_future(stage.offering.on_time(at([0.0, 1.0, 50.0])))
        await stage.clock.sleep(2)
        offering.cancel()
        await stage.clock.sleep(10)

    records = Stage(lambda _: 5.0).play(lambda stage: asyncio.ensure_future(offer(stage)))
    assert [(record.request, record.end_s) for record in records] == [(0, 5.0), (1, 6.0)]


def test_a_request_that_is_cut_before_it_runs_has_its_record_too() -> None:
    async def offer(stage: Stage) -> None:
        user = asyncio.ensure_future(stage.offering.by_turns(at([0.0]), 0.0, 1.0))
        while not stage.offering.begun:
            await asyncio.sleep(0)
            stage.offering.cut("interrupted")
        user.cancel()
        while stage.offering.open:
            await asyncio.sleep(0)

    records = Stage(lambda _: 5.0).play(lambda stage: asyncio.ensure_future(offer(stage)))
    assert [record.error for record in records] == ["interrupted"]


def test_a_fault_of_ours_ends_the_run() -> None:
    async def broken(plan: Planned, intended_s: float) -> Record:
        raise ZeroDivisionError

    taken: list[Record] = []

    async def offer() -> None:
        offering = Offering(broken, Stage(lambda _: 0)._refuse, taken.append, lambda: 0.0)
        await offering.on_time(at([0.0]))
        await offering.drain(1.0, "unfinished")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(offer())
