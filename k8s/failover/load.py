"""Users that read streams without end, through the client and its retries; every attempt is noted."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from halimede import AsyncClient, HalimedeError, RetryPolicy
from halimede.traceparent import new_traceparent
from k8s.failover.ledger import Failure, Request

PROMPTS: Final = ("Once upon a time", "The capital of France is", "To bake bread, first", "At night the sea")
TOKENS: Final = (16, 48)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedRetries(RetryPolicy):
    """The client's own policy, which also tells of each failed attempt."""

    failures: list[Failure] = field(default_factory=list)

    def delay_s(self, error: HalimedeError, failures: int, remaining_s: float | None) -> float | None:
        self.failures.append(Failure(time.monotonic(), f"{type(error).__name__}: {error}"[:160]))
        return RetryPolicy.delay_s(self, error, failures, remaining_s)


@dataclass(frozen=True, slots=True)
class User:
    """Asks `url`, and again after `pause_s`; its connection is idle in between."""

    url: str
    protocol: str
    pause_s: float
    seed: int


class Load:
    """Users that ask from entering to leaving; what is under way then is read to its end."""

    def __init__(self, users: Sequence[User], model: str) -> None:
        self.requests: list[Request] = []
        self._users, self._model = users, model
        self._stopped = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self._problem is not None and error is None:
            raise self._problem

    def _run(self) -> None:
        try:
            asyncio.run(self._ask_all())
        except BaseException as problem:  # noqa: BLE001 (raised again where the load is left)
            self._problem = problem

    async def _ask_all(self) -> None:
        await asyncio.gather(*(self._ask(user) for user in self._users))

    async def _ask(self, user: User) -> None:
        luck, retry = random.Random(user.seed), NotedRetries()
        async with AsyncClient(user.url, model=self._model, retry=retry) as client:
            while not self._stopped.is_set():
                request = Request(new_traceparent(), user.protocol, time.monotonic())
                await self._read(client, request, luck)
                request.failures.extend(retry.failures)
                retry.failures.clear()
                self.requests.append(request)
                await self._pause(user.pause_s)

    async def _read(self, client: AsyncClient, request: Request, luck: random.Random) -> None:
        wanted = luck.randint(*TOKENS)
        stream = client.stream(
            luck.choice(PROMPTS),
            max_tokens=wanted,
            ignore_eos=True,
            return_num_output_tokens=True,
            traceparent=request.id,
        )
        try:
            async with aclosing(stream) as chunks:
                async for _ in chunks:
                    request.first_s = request.first_s or time.monotonic()
            got = stream.generation.num_output_tokens
            request.error = None if got == wanted else f"{got} tokens instead of {wanted}"
        except HalimedeError as error:
            request.error = f"{type(error).__name__}: {error}"[:160]
        request.ended_s = time.monotonic()

    async def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stopped.is_set():
            await asyncio.sleep(min(0.1, seconds))
