"""The runs of both tools against one server, in turn."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.artifacts import ROOT
from loadtest.crosscheck import aiperf, ours
from loadtest.crosscheck.figures import MEASURES, Figures, Timing, figures_of
from loadtest.crosscheck.plan import Plan
from loadtest.errors import BenchError
from loadtest.served import Served
from loadtest.traffic.prompts import PromptWriter, TokenizerFile

_TAIL_LINES = 12
# What a tool may take beyond the time of its load, to start, drain and write.
_SPARE_S = 240.0


@dataclass(frozen=True, slots=True)
class Run:
    """`figures` are by our one definition, `printed` are the tool's own words for the same.

    `cpu_s` is what the tool itself took of the processor that the server runs on. `cached` is true where the
    server had some of the prompts in its prefix cache: then the figures are too good.
    """

    load: str
    tool: str
    repeat: int
    requests: int
    figures: Figures
    printed: Figures
    cpu_s: float
    cached: bool


class Runs:
    """`program` is aiperf's, `tokenizer` a folder that it can open; `folder` takes the files of each run."""

    def __init__(self, plan: Plan, server: Served, program: Path, tokenizer: Path, folder: Path) -> None:
        self._plan = plan
        self._server = server
        self._program = program
        self._tokenizer = tokenizer
        self._folder = folder

    def all(self, advance: Callable[[str], None]) -> Iterator[Run]:
        """Interleaved: each repeat has a run of both tools."""
        for repeat in range(self._plan.repeats):
            for load in self._plan.loads:
                for tool in self._plan.order(repeat):
                    advance(f"{load} {repeat + 1}, {tool}")
                    yield self._run(load, repeat, tool)

    def _run(self, load: str, repeat: int, tool: str) -> Run:
        folder = (self._folder / f"{load}-{repeat + 1}-{tool}").resolve()
        hits, cpu_s = self._server.prefix_cache_hits(), _children_cpu_s()
        timings, printed = (self._aiperf if tool == "aiperf" else self._ours)(load, repeat, folder)
        return Run(
            load,
            tool,
            repeat,
            len(timings),
            figures_of(tool, timings),
            printed,
            cpu_s=_children_cpu_s() - cpu_s,
            cached=ours.cached(folder) if tool == "load" else self._server.prefix_cache_hits() > hits,
        )

    def _aiperf(self, load: str, repeat: int, folder: Path) -> tuple[list[Timing], Figures]:
        profile = self._plan.profile(load, repeat)
        # Never the texts of another run: they would be in the server's prefix cache.
        writer = PromptWriter(TokenizerFile(self._tokenizer / "tokenizer.json"), salt=time.time_ns())
        inputs = aiperf.write_inputs(profile, writer, folder)
        words = aiperf.command(
            self._program, self._server.http, self._plan.model, profile, inputs, self._tokenizer
        )
        self._call("aiperf", words, folder, aiperf.environment(os.environ, self._folder))
        with (folder / aiperf.RECORDS).open(encoding="utf-8") as lines:
            timings = aiperf.timings_of(lines)
        aiperf.check_prompts(len(timings), profile)
        return timings, Figures(*aiperf.headline(json.loads((folder / aiperf.SUMMARY).read_text("utf-8"))))

    def _ours(self, load: str, repeat: int, folder: Path) -> tuple[list[Timing], Figures]:
        folder.mkdir(parents=True)
        profile = folder / "profile.toml"
        profile.write_text(self._plan.toml(load, repeat), "utf-8")
        words = ours.command(self._server, self._tokenizer, profile, folder)
        self._call("loadtest.load", words, folder, os.environ)
        return ours.timings_of(folder), ours.headline(folder)

    def _call(self, name: str, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        log = folder / "tool.log"
        with log.open("wb") as output:
            try:
                done = subprocess.run(
                    words,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=ROOT,
                    timeout=self._plan.duration_s + _SPARE_S,
                    check=False,
                )
                code: int | str = done.returncode
            except subprocess.TimeoutExpired:
                code = f"no code after {self._plan.duration_s + _SPARE_S:.0f} s"
        # 3: an SLO was missed, here an error; the records say which.
        if code not in (0, 3):
            tail = "\n  ".join(log.read_text("utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
            raise BenchError(f"{name} ended with {code}; the end of {log}:\n  {tail}")


def values(runs: Sequence[Run], load: str, tool: str, measure: str, of: str = "figures") -> list[float]:
    """One for each repeat, in order; `of` is figures or printed."""
    assert measure in MEASURES
    found = sorted((run for run in runs if (run.load, run.tool) == (load, tool)), key=lambda run: run.repeat)
    return [getattr(getattr(run, of), measure) for run in found]


def _children_cpu_s() -> float:
    """Of children that have ended, and of theirs; the server, which has not, is not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
