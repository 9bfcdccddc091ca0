"""How requests are offered: when each begins, how many may be open, and how those that stay open end.

Open loop: a request begins when it is due, however slow the server is. It is late only if this process is,
and that shows as its lag. Closed loop: each user's next request begins when the answer to the last has come.
Every request that was begun ends in exactly one Record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from loadtest.measure.record import Record
from loadtest.traffic.schedule import Planned
from loadtest.users.request import INTERRUPTED, NOT_SENT

# Performs one request that should begin at that time, and returns its record also when it is cancelled:
# the message of the cancellation is the class of the error.
Attempt = Callable[[Planned, float], Coroutine[Any, Any, Record]]


@dataclass(eq=False, slots=True)
class Offering:
    """`refuse` makes the record of a request that was not sent, `take` gets each record. `now` is in
    seconds since the start of the run, `sleep` waits: both are passed in, so that tests need not wait."""

    attempt: Attempt
    refuse: Callable[[Planned, float, str], Record]
    take: Callable[[Record], None]
    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    cap: int = 2000
    begun: int = 0
    capped: int = 0
    _open: set[asyncio.Task[None]] = field(default_factory=set)
    _fault: BaseException | None = None

    @property
    def open(self) -> int:
        return len(self._open)

    async def on_time(self, schedule: Iterator[Planned]) -> None:
        """Open loop; cancelling it begins no more requests and leaves the open ones alone."""
        for planned in schedule:
            assert planned.at_s is not None
            await self._until(planned.at_s)
            self._check()
            if len(self._open) < self.cap:
                self._begin(planned, planned.at_s)
                await asyncio.sleep(0)  # it begins now, not after all that are due with it
            else:
                self.capped += 1
                self.take(self.refuse(planned, planned.at_s, NOT_SENT))

    async def by_turns(self, schedule: Iterator[Planned], think_s: float, end_s: float) -> None:
        """One user of a closed loop, until `end_s`; several share one schedule."""
        await self._until(0.0)
        while self.now() < end_s:
            planned = next(schedule, None)
            if planned is None:
                return
            task = self._begin(planned, self.now())
            await asyncio.shield(task)  # the user's end is not the request's
            await self.sleep(think_s)

    async def drain(self, drain_s: float, reason: str) -> None:
        """Waits so long for the open requests; then those that are still open end with that error.

        Raises what an attempt raised: a bug in the load generator.
        """
        if self._open:
            await asyncio.wait(self._open, timeout=drain_s)
        self.cut(reason)
        if self._open:
            await asyncio.wait(self._open)
        self._check()

    def cut(self, reason: str) -> None:
        for task in self._open:
            task.cancel(reason)

    def _begin(self, planned: Planned, intended_s: float) -> asyncio.Task[None]:
        self.begun += 1

        async def run() -> None:
            self.take(await self.attempt(planned, intended_s))

        task = asyncio.create_task(run())
        self._open.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, planned, intended_s))
        return task

    def _ended(self, task: asyncio.Task[None], planned: Planned, intended_s: float) -> None:
        self._open.discard(task)
        if task.cancelled():  # before it ran at all
            self.take(self.refuse(planned, intended_s, INTERRUPTED))
        else:
            self._fault = self._fault or task.exception()

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault

    async def _until(self, at_s: float) -> None:
        if (left_s := at_s - self.now()) > 0:
            await self.sleep(left_s)
