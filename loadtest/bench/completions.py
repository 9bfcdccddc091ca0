"""An OpenAI completions server of this machine, llama-server or vLLM: started, and many streams from it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loadtest.artifacts import ROOT
from loadtest.bench.program import end_of
from loadtest.errors import BenchError
from loadtest.ports import HOST
from loadtest.prompts import Prompt
from loadtest.streams import TIMEOUT_S, require_loopback

READY_SECONDS = 420  # vLLM compiles before it is ready, the first time for minutes
_STOP_SECONDS = 20
_POLL_SECONDS = 0.2
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delta:
    """Of an event. `tokens` is None if the server reports no token ids, `usage` if it reports none."""

    tokens: int | None
    text: str
    usage: Json | None


def parse_event(event: str) -> Delta | None:
    """None for what is no data, and for the end. BenchError if the server reports an error."""
    if not event.startswith("data:") or event[5:].strip() == "[DONE]":
        return None
    found = json.loads(event[5:])
    if "error" in found:
        raise BenchError(f"the server answered {found['error']}")
    choice = (found.get("choices") or [{}])[0]
    ids = choice.get("token_ids")
    return Delta(None if ids is None else len(ids), choice.get("text") or "", found.get("usage"))


def counted(chunks: Sequence[tuple[float, Delta]], tokens: int) -> list[tuple[float, int]]:
    """The chunks that have tokens, as (seconds, tokens). BenchError if their usage is not `tokens`.

    A server that reports no ids sends one token a chunk, but holds back those that end within a character:
    what is missing in the end is counted to the last chunk.
    """
    usage = next((chunk.usage for _, chunk in reversed(chunks) if chunk.usage), None)
    reported = None if usage is None else usage["completion_tokens"]
    if reported != tokens:
        raise BenchError(f"the server counted {reported} tokens out, not {tokens}")
    stream = [(at, bool(c.text) if c.tokens is None else c.tokens) for at, c in chunks]
    found = [(at, int(count)) for at, count in stream if count]
    missing = tokens - sum(count for _, count in found)
    if not found or missing < 0:
        raise BenchError(f"{len(found)} chunks had {tokens - missing} tokens, not {tokens}")
    last_s, last = found[-1]
    return [*found[:-1], (last_s, last + missing)]


def cached_tokens(usage: Json) -> int:
    return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


def prompt_losses(content: Json, ids: Sequence[int]) -> list[float]:
    """Of vLLM's prompt_logprobs: for each token but the first, by its id."""
    found = content["choices"][0]["prompt_logprobs"]
    return [-float(at[str(token)]["logprob"]) for at, token in zip(found[1:], ids[1:], strict=True)]


@contextmanager
def serving(
    name: str, command: Sequence[str], port: int, log: Path, variables: Mapping[str, str]
) -> Iterator[str]:
    """The server's URL, once its /health answers; stopped at the end. BenchError if it does not start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **variables},
            start_new_session=True,  # its workers are ended with it, and a Ctrl-C is for us
        )
    try:
        url, deadline = f"http://{HOST}:{port}", time.monotonic() + READY_SECONDS
        while True:
            with suppress(httpx.HTTPError):  # nobody answers yet
                if httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success:
                    break
            if child.poll() is not None:
                raise BenchError(f"{name} ended with code {child.returncode}; {end_of(log)}")
            if time.monotonic() > deadline:
                raise BenchError(f"{name} is not ready after {READY_SECONDS} s; {end_of(log)}")
            time.sleep(_POLL_SECONDS)
        yield url
    finally:
        _signal(child, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_SECONDS)
        _signal(child, signal.SIGKILL)  # a server that ends may leave its workers
        child.wait()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the server and its workers."""
    with suppress(ProcessLookupError):  # all of them have ended
        os.killpg(child.pid, number)


class Completions:
    """One client, its connections kept from one measurement to the next; `model` is what it is served as."""

    def __init__(self, url: str, model: str) -> None:
        self._url = require_loopback(url)
        self._model = model
        self._runner = asyncio.Runner()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False)

    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int) -> list[list[tuple[float, int]]]:
        """For each prompt its chunks as (seconds since the start, tokens). BenchError if one fails."""
        assert beams == 1

        async def every() -> list[list[tuple[float, int]]]:
            began = time.monotonic()
            return await asyncio.gather(*(self._streamed(prompt, max_tokens, began) for prompt in prompts))

        return self._runner.run(every())

    def score(self, windows: Sequence[Prompt]) -> list[list[float]]:
        """The losses of each window's tokens after the first."""
        losses = []
        for window in windows:
            body = self._body(window, 1) | {"prompt_logprobs": 0}
            response = self._runner.run(self._client.post("/v1/completions", json=body))
            if response.is_error:
                raise BenchError(f"{self._url}: {response.status_code}: {response.text[:300]}")
            losses.append(prompt_losses(response.json(), window.ids))
        return losses

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _streamed(self, prompt: Prompt, max_tokens: int, began: float) -> list[tuple[float, int]]:
        body = self._body(prompt, max_tokens) | {
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }
        chunks = [
            (time.monotonic() - began, chunk)
            async for event in self._events(body)
            if (chunk := parse_event(event))
        ]
        usage = next((chunk.usage for _, chunk in reversed(chunks) if chunk.usage), {})
        if usage.get("prompt_tokens") != len(prompt.ids):
            reported = usage.get("prompt_tokens")
            raise BenchError(f"{self._url}: counted {reported} tokens in, not {len(prompt.ids)}")
        if cached := cached_tokens(usage):
            raise BenchError(f"{self._url}: {cached} tokens of a prompt came from a cache")
        return counted(chunks, max_tokens)

    async def _events(self, body: Json) -> AsyncIterator[str]:
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as response:
                if response.is_error:
                    text = (await response.aread()).decode(errors="replace")
                    raise BenchError(f"{self._url}: {response.status_code}: {text[:300]}")
                rest = b""
                async for data in response.aiter_raw():
                    *whole, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
                    for event in whole:
                        yield event.decode()
        except httpx.HTTPError as error:
            raise BenchError(f"{self._url}: {error!r}") from error

    def _body(self, prompt: Prompt, max_tokens: int) -> Json:
        return {"model": self._model, "prompt": list(prompt.ids), "max_tokens": max_tokens, "temperature": 0}
