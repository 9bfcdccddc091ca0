"""Rows side by side at several numbers of streams: interleaved, so that a change of the machine hits all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from loadtest.bench.plan import Plan
from loadtest.program import Answer, Program
from loadtest.prompts import Prompt, Prompts
from loadtest.sample import Sample, Stream, sample_of

_WARM_UP_TOKENS = 4


class Row(Protocol):
    def run(self, prompts: Sequence[Prompt], max_tokens: int) -> Sequence[Stream]:
        """Runs the prompts at once; for each when its chunks came."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Medians, in seconds, of decode steps with so many rows: the engine's from one model call to the next,
    the model call in it, and a bare loop's over the same positions.
    """

    streams: int
    repeat: int
    engine_s: float
    model_s: float
    bare_s: float


class InProcess:
    """A row that runs in a program of its own; `last` is its last answer."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.last: Answer = {}

    def run(self, prompts: Sequence[Prompt], max_tokens: int) -> Sequence[Stream]:
        ids = [prompt.ids for prompt in prompts]
        self.last = self._program.ask(do="generate", prompts=ids, max_tokens=max_tokens)
        return [[(at, tokens) for at, tokens in stream] for stream in self.last["streams"]]

    def score(self, windows: Sequence[Prompt]) -> list[list[float]]:
        """The losses of each window's tokens after the first, in nats."""
        losses: list[list[float]] = self._program.ask(do="score", windows=[one.ids for one in windows])[
            "losses"
        ]
        return losses


class Throughput:
    def __init__(
        self, plan: Plan, rows: Mapping[str, Row], prompts: Prompts, advance: Callable[[str], None]
    ) -> None:
        """`advance` is told what comes next, once before each measurement."""
        self._plan = plan
        self._rows = rows
        self._prompts = prompts
        self._advance = advance

    def warm_up(self) -> None:
        """Every row at every width once: memory is touched, connections are open."""
        for streams, name, row in self._schedule():
            self._advance(f"warming up {name}, {streams} streams")
            row.run(self._fresh(streams), _WARM_UP_TOKENS)

    def run(self, bare: Program | None) -> tuple[list[Sample], list[Steps]]:
        samples: list[Sample] = []
        steps: list[Steps] = []
        for repeat in range(self._plan.repeats):
            for streams, name, row in self._schedule():
                self._advance(f"{name}, {streams} streams")
                got = row.run(self._fresh(streams), self._plan.tokens_out)
                samples.append(sample_of(name, repeat, got))
                if isinstance(row, InProcess) and bare and name == "engine":
                    steps += self._compare(row.last["steps"], bare, streams, repeat)
        return samples, steps

    def _schedule(self) -> Iterator[tuple[int, str, Row]]:
        for streams in self._plan.streams:
            for name, row in self._rows.items():
                if self._plan.runs(name, streams):
                    yield streams, name, row

    def _fresh(self, streams: int) -> list[Prompt]:
        return self._prompts.take(streams, self._plan.tokens_in)

    def _compare(self, engine: Answer, bare: Program, streams: int, repeat: int) -> Iterator[Steps]:
        if streams not in self._plan.step_batches or not engine["step_s"]:
            return
        count, capacity = len(engine["step_s"]), self._plan.max_context
        loop = bare.ask(positions=engine["positions"], steps=count, capacity=capacity)["step_s"]
        yield Steps(streams, repeat, median(engine["step_s"]), median(engine["model_s"]), median(loop))
