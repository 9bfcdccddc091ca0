"""A prompt that arrives among running streams: a command of inprocess.py, for the study of chunk sizes.

  {"do": "arrive", "prompts": [[…]…], "prompt": […], "lead": 40, "max_tokens": 1024}
    streams   one list a prompt of [time since the command, tokens] for each chunk
    arrived   when `prompt` was submitted: each stream had got `lead` tokens by then
    answer    as streams has it, of `prompt`: a few tokens, after which the streams are cancelled
    pieces    [start, tokens, seconds] of each prefill of `prompt`

Without `prompts` the prompt runs alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import EngineError
from engine.outbox import Chunk
from engine.request import Request, Sampling
from engine.service import Service

# So many that every stream has got a token after the prompt's first: its last gap counts too.
_ANSWER_TOKENS = 4


@dataclass(eq=False)
class Watched:
    """A responder that tells when so many tokens have come; `reached` and `done` are set by an error too."""

    enough: int
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    error: EngineError | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def send(self, chunk: Chunk, final: bool) -> None:
        if chunk.tokens:
            self.arrivals.append((time.monotonic(), chunk.tokens))
        if final or sum(tokens for _, tokens in self.arrivals) >= self.enough:
            self.reached.set()
        if final:
            self.done.set()

    def fail(self, error: EngineError) -> None:
        self.error = error
        self.reached.set()
        self.done.set()

    def since(self, began: float) -> list[tuple[float, int]]:
        return [(at - began, tokens) for at, tokens in self.arrivals]


def arrive(service: Service, command: dict[str, Any]) -> dict[str, Any]:
    """The answer above without its pieces; EngineError when a request fails. The service has been started."""
    began = time.monotonic()
    streams = [Watched(command["lead"]) for _ in command["prompts"]]
    keys = [
        _submit(service, prompt, command["max_tokens"], stream)
        for prompt, stream in zip(command["prompts"], streams, strict=True)
    ]
    _await([stream.reached for stream in streams], streams)
    answer, arrived = Watched(_ANSWER_TOKENS), time.monotonic()
    _submit(service, command["prompt"], _ANSWER_TOKENS, answer)
    _await([answer.done], [answer, *streams])
    for key in keys:
        service.loop.cancel(key)
    for stream in streams:
        stream.done.wait()
    return {
        "streams": [stream.since(began) for stream in streams],
        "arrived": arrived - began,
        "answer": answer.since(began),
    }


def _submit(service: Service, prompt: Sequence[int], max_tokens: int, responder: Watched) -> int:
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
    request = Request(tuple(prompt), sampling, stream=True, arrival_ns=time.monotonic_ns())
    return service.submit(request, responder)


def _await(events: Sequence[threading.Event], watched: Sequence[Watched]) -> None:
    for event in events:
        event.wait()
    for one in watched:
        if one.error:
            raise one.error
