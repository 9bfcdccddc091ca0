"""Where a prompt arrives: at the engine in process, or through Triton at the client of this project."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from halimede import AsyncClient, Client, HalimedeError, RetryPolicy
from loadtest.artifacts import MODEL
from loadtest.chunks.arrival import Arrival
from loadtest.errors import BenchError
from loadtest.program import Program
from loadtest.prompts import Prompt
from loadtest.served import Served
from loadtest.streams import TIMEOUT_S, require_loopback

_ANSWER_TOKENS = 4
_IDLE_S = 30.0
_POLL_S = 0.05
_RUNNING = "halimede_num_requests_running"


class Side(Protocol):
    def run(self, prompts: Sequence[Prompt], prompt: Prompt, lead: int, max_tokens: int) -> Arrival:
        """The prompt comes when each of the streams has got `lead` tokens; at the end nothing runs."""


class InProcess:
    def __init__(self, program: Program) -> None:
        self._program = program

    def run(self, prompts: Sequence[Prompt], prompt: Prompt, lead: int, max_tokens: int) -> Arrival:
        ids = [one.ids for one in prompts]
        told = self._program.ask(
            do="arrive", prompts=ids, prompt=prompt.ids, lead=lead, max_tokens=max_tokens
        )
        return Arrival(
            streams=[[(at, tokens) for at, tokens in stream] for stream in told["streams"]],
            arrived_s=told["arrived"],
            answer=[(at, tokens) for at, tokens in told["answer"]],
            pieces=[(start, tokens, seconds) for start, tokens, seconds in told["pieces"]],
        )


class Watched:
    """A stream as it comes; `reached` is set once it has so many tokens, or has ended."""

    def __init__(self, enough: int) -> None:
        self.arrivals: list[tuple[float, int]] = []
        self.reached = asyncio.Event()
        self._left = enough

    def take(self, at: float, tokens: int) -> None:
        self.arrivals.append((at, tokens))
        self._left -= tokens
        if self._left <= 0:
            self.reached.set()


class Triton:
    """One client of a server that nobody else uses, its connection kept from one run to the next."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._url = require_loopback(server.grpc)
        self._runner = asyncio.Runner()
        self._client = AsyncClient(self._url, model=MODEL, timeout=TIMEOUT_S, retry=RetryPolicy(attempts=1))

    def run(self, prompts: Sequence[Prompt], prompt: Prompt, lead: int, max_tokens: int) -> Arrival:
        """BenchError when a stream fails, or the server has not ended the streams after a while."""
        try:
            found = self._runner.run(self._arrive(prompts, prompt, lead, max_tokens))
            self._await_idle()
        except HalimedeError as error:
            raise BenchError(f"{self._url}: {error}") from error
        return found

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _arrive(self, prompts: Sequence[Prompt], prompt: Prompt, lead: int, max_tokens: int) -> Arrival:
        began = time.monotonic()
        streams = [Watched(lead) for _ in prompts]
        tasks = [
            asyncio.create_task(self._stream(one, max_tokens, began, stream))
            for one, stream in zip(prompts, streams, strict=True)
        ]
        try:
            for stream in streams:
                await stream.reached.wait()
            arrived, answer = time.monotonic() - began, Watched(_ANSWER_TOKENS)
            await self._stream(prompt, _ANSWER_TOKENS, began, answer)
            for task in tasks:
                if task.done():
                    task.result()  # raises what ended it; who ended in time is for the arithmetic to tell
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return Arrival([stream.arrivals for stream in streams], arrived, answer.arrivals)

    async def _stream(self, prompt: Prompt, max_tokens: int, began: float, watched: Watched) -> None:
        stream = self._client.stream(prompt.text, max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        try:
            async with stream:
                async for chunk in stream:
                    if chunk.num_output_tokens:
                        watched.take(time.monotonic() - began, chunk.num_output_tokens)
        finally:
            watched.reached.set()

    def _await_idle(self) -> None:
        deadline = time.monotonic() + _IDLE_S
        with Client(self._server.http, metrics_url=self._server.metrics) as client:
            while client.metrics().total(_RUNNING):
                if time.monotonic() > deadline:
                    raise BenchError(
                        f"{self._url}: still running requests {_IDLE_S:.0f} s after their clients left"
                    )
                time.sleep(_POLL_S)
