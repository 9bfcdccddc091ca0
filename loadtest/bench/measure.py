"""The measurement: every row of a model under every load, the rows in turn in each repeat."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from loadtest.bench.engines import Build
from loadtest.bench.footprint import Footprint
from loadtest.bench.plan import OURS, TINY, Load, Model, Plan, Row, order
from loadtest.bench.program import Program
from loadtest.bench.quality import Losses
from loadtest.bench.rows import InProcess, Measurable, Scoring
from loadtest.bench.sample import Sample, Stream, sample_of
from loadtest.errors import BenchError
from loadtest.memory import PROC, tree
from loadtest.prompts import Prompt, Prompts

IDLE_CORES = 0.1
_LOOK_S = 0.25
_MOST_S = 5.0
_WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Steps:
    """Medians, in seconds, of decode steps with so many rows: the engine's from one model call to the next,
    the model call in it, and the bare graph's over the same positions.
    """

    streams: int
    repeat: int
    engine_s: float
    model_s: float
    bare_s: float


@dataclass(slots=True)
class Found:
    """All that a run found. `manifests` are the engines', by model; `losses` of rows' weights. `missing` says
    of a row why it was not measured. `idle_cores` is the most that all loaded rows took just before a
    measurement; `hits` the prompt tokens that our servers took from the prefix cache, which must be none.
    `bandwidth` is bytes a second.
    """

    samples: list[Sample] = field(default_factory=list)
    steps: list[Steps] = field(default_factory=list)
    builds: list[Build] = field(default_factory=list)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    losses: dict[str, Losses] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    footprint: Footprint | None = None
    bandwidth: float | None = None
    idle_cores: float = 0.0
    hits: float = 0.0


@dataclass(slots=True)
class Measurement:
    """What is found is added to `found`. `say` gets what comes next, before each measurement; `settle` waits
    until all that is loaded is idle.
    """

    plan: Plan
    model: Model
    prompts: Prompts
    found: Found
    say: Callable[[str], None]
    settle: Callable[[], float]

    def run(
        self, open_row: Callable[[Row], Measurable], windows: Sequence[Prompt], bare: Program | None
    ) -> None:
        """A row of a peer that fails is missing from then on. `bare` repeats the engine's steps."""
        opened = self._opened(open_row, windows)
        # Every row under every load once: memory is touched, connections are open, graphs compiled.
        for row, one in opened.values():
            for load in self.model.loads:
                if self.plan.runs(self.model, row, load):
                    self.say(f"warming up {row.name}, {load} at once")
                    self._ran(row, one, load, _WARM_UP_TOKENS)
        for repeat in range(self.plan.repeats):
            for load in self.model.loads:
                for row, one in map(opened.__getitem__, order(tuple(opened), repeat)):
                    if self.plan.runs(self.model, row, load):
                        self._measure(row, one, load, repeat, bare)

    def _opened(
        self, open_row: Callable[[Row], Measurable], windows: Sequence[Prompt]
    ) -> dict[str, tuple[Row, Measurable]]:
        opened: dict[str, tuple[Row, Measurable]] = {}
        for row in self.plan.loaded(self.model):
            if row.name not in self.found.missing:
                self.say(f"starting {row.title}")
                with self._missing(row):
                    opened[row.name] = row, open_row(row)
        # Rows of the same weights are scored once, before anything else: the engine's slots must be empty.
        for row, one in opened.values() if windows else ():
            if row.weights not in self.found.losses and isinstance(one, Scoring):
                self.say(f"scoring {row.title}")
                with self._missing(row):
                    self.found.losses[row.weights] = one.score(windows)
        return opened

    def _measure(self, row: Row, one: Measurable, load: Load, repeat: int, bare: Program | None) -> None:
        model, plan, found = self.model.name, self.plan, self.found
        self.say(f"{model}, repeat {repeat + 1} of {plan.repeats}: {row.name}, {load} at once")
        found.idle_cores = max(found.idle_cores, self.settle())
        got = self._ran(row, one, load, plan.tokens_out)
        if got is None:
            return
        tiny = model.startswith(TINY)
        found.samples.append(sample_of(model, row.name, load.beams, repeat, got, may_join=tiny))
        if bare and row.name == "engine" and isinstance(one, InProcess):
            engine = one.last["steps"]
            if load.streams in plan.step_batches and engine["step_s"]:
                steps, capacity = len(engine["step_s"]), plan.max_context
                loop = bare.ask(positions=engine["positions"], steps=steps, capacity=capacity)["step_s"]
                times = map(median, (engine["step_s"], engine["model_s"], loop))
                found.steps.append(Steps(load.streams, repeat, *times))

    def _ran(self, row: Row, one: Measurable, load: Load, tokens: int) -> Sequence[Stream] | None:
        if row.name not in self.found.missing:
            with self._missing(row):
                return one.run(self.prompts.take(load.streams, self.model.tokens_in), tokens, load.beams)
        return None

    @contextmanager
    def _missing(self, row: Row) -> Iterator[None]:
        """A peer's row that fails is missing. Ours must work: without it there is nothing to compare."""
        try:
            yield
        except BenchError as error:
            if row.peer == OURS:
                raise
            self.found.missing[row.name] = str(error)


def settle(cpu_s: Callable[[], float] | None = None, wait: Callable[[float], None] = time.sleep) -> float:
    """Waits until this process and all it started take under `IDLE_CORES`, for five seconds at most; the
    cores they took in the end. Some programs spin for a second after their last step.
    """
    read = cpu_s or (lambda: cpu_of_tree(os.getpid()))
    before = read()
    cores = 0.0
    for _ in range(int(_MOST_S / _LOOK_S)):
        wait(_LOOK_S)
        now = read()
        cores, before = (now - before) / _LOOK_S, now
        if cores < IDLE_CORES:
            break
    return cores


def cpu_of_tree(root: int) -> float:
    """Seconds of processor time that a process and all its descendants have taken, user and system."""
    ticks = 0
    for pid in tree(root):
        try:
            fields = (PROC / f"{pid}" / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended since
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
