"""The thread that sends: an asyncio loop that keeps the schedule and the clock of one run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from halimede.target import parse_target
from loadtest.measure.record import Record
from loadtest.traffic.arrivals import Closed
from loadtest.traffic.mix import Protocol
from loadtest.traffic.profile import Profile
from loadtest.traffic.prompts import PromptWriter
from loadtest.traffic.schedule import Planned, schedule, share_of
from loadtest.traffic.tokenizer import TokenizerFile
from loadtest.users.attempt import Attempts
from loadtest.users.faults import INTERRUPTED, UNFINISHED
from loadtest.users.grpc_sender import GrpcSender
from loadtest.users.http_sender import HttpSender
from loadtest.users.offering import Offering
from loadtest.users.plan import Plan, Words

CONNECT_S = 5.0


class Sending:
    """One worker's share of one run. `records` grows as requests end; the other counts are for display.

    Its seats are taken by Locust's users: one in an open loop, its share of the users in a closed one.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.profile = plan.load()
        self._schedule = schedule(self.profile, plan.worker, plan.workers)
        self._write = writer_of(plan)
        self.records: deque[Record] = deque()
        self.tokens = 0
        self.examples: dict[str, str] = {}
        self._zero_s = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sending", daemon=True)
        self._thread.start()
        self._senders = self._call(self._connected()).result()
        self.offering = self._offering()

    def begin(self, start_epoch_s: float) -> None:
        """The run's zero on the wall clock, on which the hosts must agree; from here on the monotonic clock
        counts."""
        self._zero_s = time.monotonic() + start_epoch_s - time.time()

    @property
    def seats(self) -> int:
        arrivals = self.profile.arrivals
        if isinstance(arrivals, Closed):
            return share_of(arrivals.users, self.plan.worker, self.plan.workers)
        return 1

    def sit(self) -> Future[None]:
        """One seat's part of the load. Cancelling it begins no more requests."""
        arrivals = self.profile.arrivals
        if isinstance(arrivals, Closed):
            end_s = self.profile.total_s
            return self._call(self.offering.by_turns(self._schedule, arrivals.think_s, end_s))
        return self._call(self.offering.on_time(self._schedule))

    def drain(self) -> Future[None]:
        return self._call(self.offering.drain(self.plan.drain_s, UNFINISHED))

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self.offering.cut, INTERRUPTED)

    def close(self) -> None:
        self._call(self._closed()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def now(self) -> float:
        return time.monotonic() - self._zero_s

    def _call(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _heard(self, tokens: int) -> None:
        self.tokens += tokens

    def _failed(self, error: str, words: str) -> None:
        self.examples.setdefault(error, words)

    def _offering(self) -> Offering:
        attempts = Attempts(
            self.profile, self.plan.model, self._senders, self._write, self.now, self._heard, self._failed
        )
        return Offering(attempts.perform, attempts.refuse, self.records.append, self.now, cap=self.plan.cap)

    async def _connected(self) -> dict[Protocol, GrpcSender | HttpSender]:
        """Those that the mix needs. Where nobody answers the requests will say so, each as an error."""
        made = senders_of(self.profile, self.plan)
        try:
            async with asyncio.timeout(CONNECT_S):
                for sender in made.values():
                    await sender.connect()
        except TimeoutError:
            pass
        return made

    async def _closed(self) -> None:
        for sender in self._senders.values():
            await sender.close()


def senders_of(profile: Profile, plan: Plan) -> dict[Protocol, GrpcSender | HttpSender]:
    made: dict[Protocol, GrpcSender | HttpSender] = {}
    for protocol in {entry.protocol for entry in profile.mix}:
        if protocol is Protocol.GRPC:
            made[protocol] = GrpcSender(parse_target(plan.grpc_url), plan.connections)
        else:
            made[protocol] = HttpSender(parse_target(plan.http_url))
    return made


def writer_of(plan: Plan) -> Callable[[Planned], str]:
    """Prompts by the words of the model that each request asks."""
    writers = {model: _writer(words, plan.salt) for model, words in plan.words.items()}
    return lambda planned: writers[planned.kind.model or plan.model].write(planned)


def _writer(words: Words, salt: int) -> PromptWriter:
    if words.tokenizer and Path(words.tokenizer).is_file():
        return PromptWriter(TokenizerFile(Path(words.tokenizer)), salt)
    return PromptWriter(None, salt, words.tokens_per_word)
