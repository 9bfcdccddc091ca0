"""The engine without Triton, driven by JSON: for benchmarks and profiles.

It reads one command per line from stdin and writes one answer per line to stdout, until stdin ends. A command
that cannot be run is answered with {"error": text}. Times are in seconds. Prompts are lists of token ids (of
sources, where the model has an encoder). Of `generate` and `profile` all are submitted together, and answers
have exactly `max_tokens` tokens; they are greedy, or beam-searched with `num_beams`.

  {"do": "generate", "prompts": [[…]…], "max_tokens": 64, "num_beams": 1}
    streams   one list a prompt of [time since the command, tokens] for each chunk
    steps     the decode steps that all prompts shared: `positions` of the rows in the first one, `step_s`
              from one model call to the next, `model_s` of the model call alone
  {"do": "profile", "prompts": [[…]…], "max_tokens": 64, "lines": 25}
    profile   the functions of the engine's loop with the most time of their own, as text
  {"do": "score", "windows": [[…]…]}
    losses    negative log-likelihoods of each window's tokens after the first, in nats; the windows have one
              length, and each a row
  {"do": "score", "windows": [[…]…], "starts": [1…]}
    losses    of each window's tokens from its start on; windows of any number and length
  {"do": "complete", "prompts": [{"tokens": […], "max_tokens": 20, "seed": 7, "temperature": 1}…]}
    answers   of each prompt its `text`, as the server would answer it, the number of `tokens`, and why it
              ended (`finish`); the fields beside the prompt's tokens are those of a request
  {"do": "chat", "messages": [text…]}
    prompts   the token ids of a conversation in which the user said this, up to the model's turn
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
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine.core.contract import TokenizerSettings
from engine.core.errors import EngineError, InvalidArgument
from engine.core.request import Request, Sampling
from engine.core.tokens import TokenTable, load_table
from engine.edge.artifact import read_manifest
from engine.edge.chunks import Chunk, decode_chunk
from engine.edge.settings import Settings, read_settings
from engine.edge.triton import signals_of
from engine.prompts.reader import Reader
from engine.runners.opening import open_cpu_runner
from engine.runners.runner import Floats, Run, Runner, Verifier
from engine.service import Service
from scoring import check, loss, score

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
    """A responder that keeps the chunks, and when each with tokens arrived. `room` is released at the end."""

    room: threading.Semaphore | None = None
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    error: EngineError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def send(self, chunk: Chunk, final: bool) -> None:
        self.chunks.append(chunk)
        if chunk.tokens:
            self.arrivals.append((time.monotonic(), chunk.tokens))
        if final:
            self._end()

    def fail(self, error: EngineError) -> None:
        self.error = error
        self._end()

    def wait(self) -> None:
        """Raises EngineError for a request that failed."""
        self.done.wait()
        if self.error:
            raise self.error

    def _end(self) -> None:
        self.done.set()
        if self.room:
            self.room.release()


class InProcess:
    """`score` has the runner to itself: the service, whose scheduler would not know of it, is closed before,
    and opened anew after.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._opened = open_cpu_runner(read_manifest(folder), settings)
        self._settings = settings
        runner = self._opened.runner
        self._runner = TimedVerifier(runner) if isinstance(runner, Verifier) else TimedRunner(runner)
        self._service = self._new_service()
        self._started = False

    @property
    def ready(self) -> dict[str, Any]:
        """What runs: the card of the engine, as `{"describe": true}` returns it."""
        return {"ready": True, "card": self._service.description}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Raises EngineError, or what a command without its fields raises."""
        match command["do"]:
            case "score":
                return {"losses": self._scored(command["windows"], command.get("starts"))}
            case "complete":
                return {"answers": self._complete(command["prompts"])}
            case "chat":
                return {"prompts": [self._chat(text) for text in command["messages"]]}
            case "generate" | "profile" as what:
                prompts, max_tokens = command["prompts"], command["max_tokens"]
                beams = command.get("num_beams", 1)
                sampling = Sampling(max_tokens=max_tokens, ignore_eos=True, num_beams=beams)
                if what == "profile":
                    return {"profile": self._profile(prompts, sampling, command["lines"])}
                return self._generate(prompts, sampling)
        raise InvalidArgument("do", f"{command['do']!r}, must be score, complete, chat, generate or profile")

    def _scored(self, windows: list[list[int]], starts: list[int] | None) -> list[list[float]]:
        if self._opened.manifest.shape.has_encoder:
            raise InvalidArgument("do", "score, must be another: an encoder-decoder has no windows")
        vocab, capacity = self._opened.manifest.shape.vocab_size, self._settings.max_context
        check(windows, [1] * len(windows) if starts is None else starts, vocab, capacity)
        self._stop()
        self._runner.calls.clear()
        if starts is None:
            return self._in_rows(windows)
        return score(self._runner, self._settings.slots, windows, starts)

    def _in_rows(self, windows: list[list[int]]) -> list[list[float]]:
        """Scores windows of one length, a row each, with the same decode steps that produce answers."""
        losses: list[list[float]] = [[] for _ in windows]
        for position, (tokens, following) in enumerate(pairwise(zip(*windows, strict=True))):
            logits = self._runner.decode(tokens, [position] * len(tokens))
            for found, scores, token in zip(losses, logits, following, strict=True):
                found.append(loss(scores, token))
        return losses

    def _complete(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As many prompts as the service takes are with it at any time."""
        requests = [_request(prompt, place) for place, prompt in enumerate(prompts)]
        self._start()
        room = threading.Semaphore(self._settings.slots + self._settings.max_queue)
        collectors = []
        for request in requests:
            room.acquire()
            collectors.append(Collector(room))
            try:
                self._service.submit(request, collectors[-1])
            except EngineError as error:
                collectors[-1].fail(error)
        for collector in collectors:
            collector.done.wait()
        return [self._answered(collector) for collector in collectors]

    def _answered(self, collector: Collector) -> dict[str, Any]:
        """An answer is one chunk, since it is not streamed."""
        collector.wait()
        (chunk,) = collector.chunks
        answer = decode_chunk(chunk.to_json().encode(), self._table).answer
        return {"text": answer.text, "tokens": chunk.tokens, "finish": answer.finish_reason}

    def _chat(self, text: str) -> Sequence[int]:
        messages = json.dumps([{"role": "user", "content": text}])
        return self._reader.read({"messages": messages.encode()}, {}, 0).prompt

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self._opened.manifest, TokenizerSettings())

    @cached_property
    def _table(self) -> TokenTable:
        return load_table(self._opened.manifest.path("tokens.bin"))

    def _new_service(self) -> Service:
        opened = replace(self._opened, runner=self._runner)
        return Service(opened, self._settings, signals_of({}), _report)

    def _start(self) -> None:
        if not self._started:
            self._service.start()
            self._started = True

    def _stop(self) -> None:
        if self._started:
            self._service.close()
            self._service = self._new_service()
            self._started = False

    def _generate(self, prompts: list[list[int]], sampling: Sampling) -> dict[str, Any]:
        self._start()
        self._runner.calls.clear()
        began = time.monotonic()
        collectors = self._submit(prompts, sampling)
        for collector in collectors:
            collector.wait()
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


def _request(prompt: dict[str, Any], place: int) -> Request:
    """Raises InvalidArgument that names the prompt."""
    fields = {name: value for name, value in prompt.items() if name != "tokens" and value is not None}
    try:
        return Request(tuple(prompt["tokens"]), Sampling(**fields), arrival_ns=time.monotonic_ns())
    except (EngineError, KeyError, TypeError) as error:
        raise InvalidArgument(f"prompts[{place}]", f"{error}") from None


def _report(error: BaseException) -> None:
    print(f"inprocess.py: {error!r}", file=sys.stderr)


def _answer(engine: InProcess, line: str) -> dict[str, Any]:
    try:
        return engine.answer(json.loads(line))
    except EngineError as error:
        return {"error": str(error)}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return {"error": f"the command cannot be read: {error!r}"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the engine without Triton; JSON in, JSON out.")
    parser.add_argument("engine", type=Path, help="the folder of its manifest.json")
    parameters = 'as in config.pbtxt, e.g. {"slots": "32"}'
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON", help=parameters)
    options = parser.parse_args()
    try:
        engine = InProcess(options.engine, read_settings(options.parameters))
        print(json.dumps(engine.ready), flush=True)
        for line in sys.stdin:
            print(json.dumps(_answer(engine, line)), flush=True)
    except EngineError as error:
        sys.exit(f"inprocess.py: {error}")


if __name__ == "__main__":
    main()
