"""The two that are compared: transformers in a program of its own, and a server of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from loadtest.models.plan import Shape
from loadtest.program import Program
from loadtest.prompts import Prompt
from loadtest.sample import Stream
from loadtest.served import served
from loadtest.streams import Streams


class Side(Protocol):
    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int) -> Sequence[Stream]:
        """Answers the prompts at once; for each when its tokens came, with beams all at the end."""


class Reference:
    """transformers.generate on the checkpoint, the prompts as one batch."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int) -> Sequence[Stream]:
        ids = [prompt.ids for prompt in prompts]
        answer = self._program.ask(prompts=ids, max_tokens=max_tokens, num_beams=beams)
        return [[(at, tokens) for at, tokens in stream] for stream in answer["streams"]]


class Server:
    """Each prompt a request: greedy ones are streamed, the others come whole."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int) -> Sequence[Stream]:
        return self._streams.run(prompts, max_tokens, beams)


@contextmanager
def sides(shape: Shape, checkpoint: Path, repository: Path, logs: Path) -> Iterator[Mapping[str, Side]]:
    """Both, ready, as `plan.TITLES` names them; ended at the end."""
    with (
        served(repository, logs / "server.log", shape.name) as server,
        _streams(server.grpc, shape.name) as streams,
        _transformers(checkpoint, logs / "reference.log") as program,
    ):
        yield {"transformers": Reference(program), "triton": Server(streams)}


@contextmanager
def _streams(url: str, model: str) -> Iterator[Streams]:
    streams = Streams(url, model)
    try:
        yield streams
    finally:
        streams.close()


def _transformers(checkpoint: Path, log: Path) -> Program:
    """With as many threads as the engine takes of itself."""
    threads = f"{len(os.sched_getaffinity(0))}"
    command = [sys.executable, "-m", "loadtest.bench.reference", threads, str(checkpoint)]
    return Program("transformers", command, log, {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})
