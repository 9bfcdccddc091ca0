"""One request, from its sending to its record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol as Interface

from halimede.errors import HalimedeError
from halimede.results import Chunk
from halimede.timeouts import with_grace
from loadtest.measure.record import Record
from loadtest.traffic.mix import Protocol
from loadtest.traffic.profile import Profile
from loadtest.traffic.schedule import Planned
from loadtest.users.asking import Ask, ask_of
from loadtest.users.faults import TIMEOUT, error_class
from loadtest.users.tape import Tape, phase_of


class Sender(Interface):
    def send(self, ask: Ask, sent: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
        """Calls `sent` when the request leaves. Closing the generator leaves the request."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """`model` is asked where the mix names none; `write` makes prompts; `heard` is told of tokens as they
    come, `failed` the class and the words of an error that the mix did not ask for."""

    profile: Profile
    model: str
    senders: Mapping[Protocol, Sender]
    write: Callable[[Planned], str]
    now: Callable[[], float]
    heard: Callable[[int], None]
    failed: Callable[[str, str], None]

    async def perform(self, planned: Planned, intended_s: float) -> Record:
        """Swallows its cancellation, whose message becomes the error: no request is without its record."""
        tape, error = self._tape(planned, intended_s), None
        try:
            async with asyncio.timeout(with_grace(planned.kind.timeout_s)):
                await self._follow(planned, tape)
        except TimeoutError:
            error = TIMEOUT
        except asyncio.CancelledError as cut:
            error = str(cut)
        except HalimedeError as fault:
            error = error_class(fault)
            if planned.kind.bad is None:
                self.failed(error, str(fault))
        return tape.record(self.now(), error)

    def refuse(self, planned: Planned, intended_s: float, error: str) -> Record:
        return self._tape(planned, intended_s).record(self.now(), error)

    async def _follow(self, planned: Planned, tape: Tape) -> None:
        ask = ask_of(planned, self.write(planned), self._model(planned))
        sender = self.senders[planned.kind.protocol]
        async with aclosing(sender.send(ask, lambda: tape.sent(self.now()))) as chunks:
            async for chunk in chunks:
                self.heard(tape.take(chunk, self.now()))
                if tape.leaves:
                    return

    def _tape(self, planned: Planned, intended_s: float) -> Tape:
        return Tape(planned, self._model(planned), intended_s, phase_of(self.profile, intended_s))

    def _model(self, planned: Planned) -> str:
        return planned.kind.model or self.model
