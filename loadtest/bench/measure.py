"""The measurement: every row of a model under every load, interleaved over the repeats."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Measurement:
    def __init__(
        self,
        plan: Plan,
        model: Model,
        prompts: Prompts,
        found: Found,
        say: Callable[[str], None],
        settle: Callable[[], float],
    ) -> None:
        """What is found is added to `found`. `say` gets what comes next, before each measurement; `settle`
        waits until all that is loaded is idle.
        """
        self._plan = plan
        self._model = model
        self._prompts = prompts
        self._found = found
        self._say = say
        self._settle = settle
        self._rows = {row.name: row for row in plan.loaded(model)}

    def run(
        self, open_row: Callable[[Row], Measurable], windows: Sequence[Prompt], bare: Program | None
    ) -> None:
        """A row of a peer that fails is missing from then on. `bare` repeats the engine's steps."""
        opened = dict(self._opened(open_row))
        if windows:
            self._score(opened, windows)
        # Every row under every load once: memory is touched, connections are open, graphs compiled.
        for name, row in opened.items():
            for load in self._loads(name):
                self._say(f"warming up {name}, {load} at once")
                self._ran(name, row, load, _WARM_UP_TOKENS)
        for repeat in range(self._plan.repeats):
            for load in self._model.loads:
                for name in order(tuple(opened), repeat):
                    if load in self._loads(name):
                        self._measure(name, opened[name], load, repeat, bare)

    def _opened(self, open_row: Callable[[Row], Measurable]) -> Iterator[tuple[str, Measurable]]:
        for row in self._rows.values():
            if row.name in self._found.missing:
                continue
            self._say(f"starting {row.title}")
            try:
                yield row.name, open_row(row)
            except BenchError as error:
                self._miss(row.name, error)

    def _score(self, opened: Mapping[str, Measurable], windows: Sequence[Prompt]) -> None:
        """Rows of the same weights once, before anything else: the engine's slots must be empty."""
        for name, one in opened.items():
            row = self._rows[name]
            if row.weights in self._found.losses or not isinstance(one, Scoring):
                continue
            self._say(f"scoring {row.title}")
            try:
                self._found.losses[row.weights] = one.score(windows)
            except BenchError as error:
                self._miss(name, error)

    def _loads(self, name: str) -> list[Load]:
        row = self._rows[name]
        return [load for load in self._model.loads if self._plan.runs(self._model, row, load)]

    def _measure(self, name: str, row: Measurable, load: Load, repeat: int, bare: Program | None) -> None:
        self._say(f"{self._model.name}, repeat {repeat + 1} of {self._plan.repeats}: {name}, {load} at once")
        self._found.idle_cores = max(self._found.idle_cores, self._settle())
        got = self._ran(name, row, load, self._plan.tokens_out)
        if got is None:
            return
        tiny = self._model.name.startswith(TINY)
        sample = sample_of(self._model.name, name, load.beams, repeat, got, may_join=tiny)
        self._found.samples.append(sample)
        if bare and name == "engine" and isinstance(row, InProcess):
            self._compare(row.last["steps"], bare, load.streams, repeat)

    def _compare(self, engine: Mapping[str, Any], bare: Program, streams: int, repeat: int) -> None:
        if streams in self._plan.step_batches and engine["step_s"]:
            steps, capacity = len(engine["step_s"]), self._plan.max_context
            loop = bare.ask(positions=engine["positions"], steps=steps, capacity=capacity)["step_s"]
            times = map(median, (engine["step_s"], engine["model_s"], loop))
            self._found.steps.append(Steps(streams, repeat, *times))

    def _ran(self, name: str, row: Measurable, load: Load, tokens: int) -> Sequence[Stream] | None:
        if name in self._found.missing:
            return None
        try:
            return row.run(self._prompts.take(load.streams, self._model.tokens_in), tokens, load.beams)
        except BenchError as error:
            self._miss(name, error)
            return None

    def _miss(self, name: str, error: BenchError) -> None:
        """Our own row must work: without it there is nothing to compare."""
        if self._rows[name].peer == OURS:
            raise error
        self._found.missing[name] = str(error)


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
