"""Many streams at once from a server of this machine, through our own client."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Sequence

from halimede import AsyncClient, HalimedeError, InvalidArgument, RetryPolicy
from halimede.target import parse_target
from loadtest.errors import BenchError
from loadtest.prompts import Prompt

TIMEOUT_S = 900.0


def require_loopback(url: str) -> str:
    """The URL itself; BenchError unless every address of its host is one of this machine's loopback."""
    try:
        host = parse_target(url).host
        found = {str(row[4][0]) for row in socket.getaddrinfo(host, None)}
    except InvalidArgument as error:
        raise BenchError(str(error)) from error
    except OSError as error:
        raise BenchError(f"{url}: no such host ({error.strerror})") from error
    strangers = sorted(address for address in found if not ipaddress.ip_address(address).is_loopback)
    if strangers:
        raise BenchError(
            f"{url}: is {strangers[0]}, not a loopback address: a benchmark puts load on its own machine"
            " only; run it there, against 127.0.0.1"
        )
    return url


class Streams:
    """One client, its connections kept from one measurement to the next."""

    def __init__(self, url: str, model: str) -> None:
        self._url = require_loopback(url)
        self._runner = asyncio.Runner()
        self._client = AsyncClient(url, model=model, timeout=TIMEOUT_S, retry=RetryPolicy(attempts=1))

    def run(
        self, prompts: Sequence[Prompt], max_tokens: int, num_beams: int = 1
    ) -> list[list[tuple[float, int]]]:
        """For each prompt its chunks as (seconds since the start, tokens). BenchError when one fails.

        With more than one beam each answer is one chunk.
        """

        async def every() -> list[list[tuple[float, int]]]:
            began = time.monotonic()
            return await asyncio.gather(*(self._answer(p, max_tokens, num_beams, began) for p in prompts))

        try:
            return self._runner.run(every())
        except HalimedeError as error:
            raise BenchError(f"{self._url}: {error}") from error

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _answer(
        self, prompt: Prompt, max_tokens: int, num_beams: int, began: float
    ) -> list[tuple[float, int]]:
        if num_beams > 1:
            answer = await self._client.generate(
                prompt.text, max_tokens=max_tokens, num_beams=num_beams, ignore_eos=True
            )
            arrivals = [(time.monotonic() - began, max_tokens)]
        else:
            stream = self._client.stream(prompt.text, max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
            async with stream:
                arrivals = [
                    (time.monotonic() - began, chunk.num_output_tokens)
                    async for chunk in stream
                    if chunk.num_output_tokens
                ]
            answer = stream.generation
        counts = (answer.num_input_tokens, answer.num_output_tokens)
        if counts != (len(prompt.ids), max_tokens):
            wanted = f"{len(prompt.ids)} in and {max_tokens} out"
            raise BenchError(f"{self._url}: counted {counts[0]} tokens in and {counts[1]} out, not {wanted}")
        return arrivals
