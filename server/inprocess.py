"""The engine without Triton, driven by JSON: for benchmarks and profiles.

It reads one command per line from stdin and writes one answer per line to stdout, until stdin ends. Times are
in seconds. Prompts are lists of token ids (of sources, where the model has an encoder); all prompts of a
command are submitted together. Answers have exactly `max_tokens` tokens; they are greedy, or beam-searched
with `num_beams`.

  {"do": "generate", "prompts": [[…]…], "max_tokens": 64, "num_beams": 1}
    streams   one list a prompt of [time since the command, tokens] for each chunk
    steps     the decode steps that all prompts shared: `positions` of the rows in the first one, `step_s`
              from one model call to the next, `model_s` of the model call alone
  {"do": "profile", "prompts": [[…]…], "max_tokens": 64, "lines": 25}
    profile   the functions of the engine's loop with the most time of their own, as text
  {"do": "score", "windows": [[…]…]}
    losses    negative log-likelihoods of each window's tokens after the first; only before other commands
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from engine.core.errors import EngineError
from engine.core.request import Request, Sampling
from engine.edge.artifact import read_manifest
from engine.edge.chunks import Chunk
from engine.edge.settings import Settings, read_settings
from engine.edge.triton import signals_of
from engine.runners.opening import open_cpu_runner
from engine.runners.runner import Floats, Run, Runner, Verifier
from engine.service import Service

# Prompts of this length are too short to be reused later; they only create the bindings of a batch that wide.
_WARM_UP = 8


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the model: the `positions` of the rows that it decoded, and how many `tokens` of a prompt it
    computed.
    """

    positions: tuple[int, ...]
    began: float
    ended: float
    tokens: int = 0


class TimedRunner:
    """A runner that records its model calls: the time between them is the engine's own."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.calls: list[Call] = []

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        began = time.monotonic()
        logits = self._runner.decode(tokens, positions)
        self.calls.append(Call(tuple(positions), began, time.monotonic()))
        return logits

    def prefill(self, slot: int, start: int, tokens: Sequence[int]) -> Floats:
        began = time.monotonic()
        logits = self._runner.prefill(slot, start, tokens)
        self.calls.append(Call((), began, time.monotonic(), len(tokens)))
        return logits

    def encode(self, slot: int, tokens: Sequence[int]) -> None:
        began = time.monotonic()
        self._runner.encode(slot, tokens)
        self.calls.append(Call((), began, time.monotonic()))

    def copy(self, source: int, target: int, tokens: int, *, start: int = 0, cross: bool = True) -> None:
        self._runner.copy(source, target, tokens, start=start, cross=cross)

    def swap(self, a: int, b: int, tokens: int) -> None:
        self._runner.swap(a, b, tokens)


class TimedVerifier(TimedRunner):
    def __init__(self, runner: Verifier) -> None:
        super().__init__(runner)
        self._verifier = runner

    def verify(self, runs: Sequence[Run]) -> Floats:
        began = time.monotonic()
        logits = self._verifier.verify(runs)
        ended = time.monotonic()
        positions = tuple(run.start for run in runs if run.wanted is None)
        tokens = sum(len(run.tokens) for run in runs if run.wanted is not None)
        self.calls.append(Call(positions, began, ended, tokens))
        return logits


@dataclass(eq=False)
class Collector:
    """A responder that records when each chunk arrived, and how many tokens it had."""

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    error: EngineError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def send(self, chunk: Chunk, final: bool) -> None:
        if chunk.tokens:
            self.arrivals.append((time.monotonic(), chunk.tokens))
        if final:
            self.done.set()

    def fail(self, error: EngineError) -> None:
        self.error = error
        self.done.set()


class InProcess:
    def __init__(self, folder: Path, settings: Settings) -> None:
        opened = open_cpu_runner(read_manifest(folder), settings)
        runner = opened.runner
        self._runner = TimedVerifier(runner) if isinstance(runner, Verifier) else TimedRunner(runner)
        self._service = Service(replace(opened, runner=self._runner), settings, signals_of({}), _report)
        self._started = False

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["do"] == "score":
            return {"losses": self._score(command["windows"])}
        prompts, max_tokens = command["prompts"], command["max_tokens"]
        sampling = Sampling(max_tokens=max_tokens, ignore_eos=True, num_beams=command.get("num_beams", 1))
        if command["do"] == "profile":
            return {"profile": self._profile(prompts, sampling, command["lines"])}
        assert command["do"] == "generate"
        return self._generate(prompts, sampling)

    def _score(self, windows: list[list[int]]) -> list[list[float]]:
        """Scores windows of one length, a row each, with the same decode steps that produce answers."""
        assert not self._started, "the slots would hold other tokens than the scheduler knows"
        losses: list[list[float]] = [[] for _ in windows]
        for position, (tokens, following) in enumerate(pairwise(zip(*windows, strict=True))):
            logits = self._runner.decode(tokens, [position] * len(tokens))
            for found, scores, token in zip(losses, logits, following, strict=True):
                found.append(_loss(scores, token))
        return losses

    def _generate(self, prompts: list[list[int]], sampling: Sampling) -> dict[str, Any]:
        if not self._started:
            self._service.start()
            self._started = True
        self._runner.calls.clear()
        began = time.monotonic()
        collectors = self._submit(prompts, sampling)
        for collector in collectors:
            collector.done.wait()
            if collector.error:
                raise collector.error
        first_end = min(collector.arrivals[-1][0] for collector in collectors)
        streams = [[(at - began, tokens) for at, tokens in c.arrivals] for c in collectors]
        return {"streams": streams, "steps": shared_steps(self._runner.calls, len(prompts), first_end)}

    def _submit(self, prompts: list[list[int]], sampling: Sampling) -> list[Collector]:
        collectors = [Collector() for _ in prompts]
        stream = sampling.num_beams == 1
        for prompt, collector in zip(prompts, collectors, strict=True):
            now = time.monotonic_ns()
            self._service.submit(Request(tuple(prompt), sampling, stream, arrival_ns=now), collector)
        return collectors

    def _profile(self, prompts: list[list[int]], sampling: Sampling, lines: int) -> str:
        """Steps the loop in this thread, since a profile covers one thread; chunks are made but not sent."""
        assert not self._started
        self._submit([prompt[:_WARM_UP] for prompt in prompts], replace(sampling, max_tokens=_WARM_UP))
        self._step_all()
        self._submit(prompts, sampling)
        with cProfile.Profile() as profile:
            self._step_all()
        text = io.StringIO()
        pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(lines)
        return text.getvalue()

    def _step_all(self) -> None:
        while self._service.loop.keys():
            self._service.loop.step()


def shared_steps(calls: Sequence[Call], rows: int, first_end: float) -> dict[str, Any]:
    """The decode calls after the last prefill that have `rows` rows and began before the first stream
    ended.
    """
    prefills = [index for index, call in enumerate(calls) if call.tokens or not call.positions]
    after = calls[max(prefills, default=-1) + 1 :]
    shared = [call for call in after if len(call.positions) == rows and call.began <= first_end]
    pairs = list(pairwise(shared))
    return {
        "positions": shared[0].positions if shared else [],
        "step_s": [later.began - call.began for call, later in pairs],
        "model_s": [call.ended - call.began for call, _ in pairs],
    }


def _loss(logits: Floats, token: int) -> float:
    scores = logits.astype(np.float64)
    most = scores.max()
    return float(np.log(np.exp(scores - most).sum()) + most - scores[token])


def _report(error: BaseException) -> None:
    print(f"inprocess.py: {error!r}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the engine without Triton; JSON in, JSON out.")
    parser.add_argument("engine", type=Path, help="the folder of its manifest.json")
    parameters = 'as in config.pbtxt, e.g. {"slots": "32"}'
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON", help=parameters)
    options = parser.parse_args()
    try:
        engine = InProcess(options.engine, read_settings(options.parameters))
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(engine.answer(json.loads(line))), flush=True)
    except EngineError as error:
        sys.exit(f"inprocess.py: {error}")


if __name__ == "__main__":
    main()
