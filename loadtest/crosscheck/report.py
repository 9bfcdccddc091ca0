"""What the cross-check found, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtest.crosscheck.agreement import Agreement, Repeats, agreement
from loadtest.crosscheck.plan import TOOLS, Plan
from loadtest.crosscheck.runs import Run, values

VERSION = 1
_WIDTH = 110
# Measure: title, scale.
_MEASURES = {
    "ttft_p50_s": ("TTFT p50, ms", 1000),
    "itl_mean_s": ("ITL mean, ms", 1000),
    "e2e_p50_s": ("E2E p50, ms", 1000),
    "tokens_per_s": ("tokens/s out", 1),
}


def agreements(runs: Sequence[Run], load: str) -> list[Agreement]:
    """Of each figure, by our one definition for both tools."""
    return [agreement(name, *(values(runs, load, tool, name) for tool in TOOLS)) for name in _MEASURES]


def agree(plan: Plan, runs: Sequence[Run]) -> bool:
    return all(found.agrees for load in plan.loads for found in agreements(runs, load))


def to_json(plan: Plan, machine: dict[str, Any], versions: dict[str, str], runs: Sequence[Run]) -> Any:
    return {
        "version": VERSION,
        "machine": machine,
        "versions": versions,
        "plan": asdict(plan),
        "runs": [asdict(run) for run in runs],
        "agreements": {load: [_stated(found) for found in agreements(runs, load)] for load in plan.loads},
        "agree": agree(plan, runs),
    }


def show(plan: Plan, runs: Sequence[Run], console: Console) -> None:
    # A file has no width of its own.
    wide = console if console.is_terminal else Console(file=console.file, width=_WIDTH)
    for load in plan.loads:
        wide.print(_table(plan, runs, load))
    wide.print("* as the tool itself prints it; all else by one definition for both")
    for line in _remarks(plan, runs):
        wide.print(line)


def _table(plan: Plan, runs: Sequence[Run], load: str) -> Table:
    title = (
        f"{plan.words(load)}; {plan.tokens_in} tokens in, {plan.tokens_out} out;"
        f" medians of {plan.repeats} repeats of {plan.duration_s} s, least to most"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for column in ("load", "range", "aiperf", "range", "differ by", "spread", "", "load*", "aiperf*"):
        table.add_column(column, justify="right", no_wrap=True)
    for found in agreements(runs, load):
        table.add_row(*_cells(found, runs, load))
    return table


def _cells(found: Agreement, runs: Sequence[Run], load: str) -> Iterator[str]:
    title, scale = _MEASURES[found.name]
    yield title
    for repeats in (found.ours, found.theirs):
        yield from _repeats(repeats, scale)
    yield f"{found.relative:+.1%}"
    yield f"{found.spread / found.theirs.median:.1%}"
    yield "[green]agree" if found.agrees else "[red]differ"
    for tool in TOOLS:
        yield _number(median(values(runs, load, tool, found.name, of="printed")) * scale)


def _repeats(repeats: Repeats, scale: float) -> tuple[str, str]:
    median_, low, high = (_number(value * scale) for value in (repeats.median, repeats.low, repeats.high))
    return median_, f"{low}–{high}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _remarks(plan: Plan, runs: Sequence[Run]) -> Iterator[str]:
    for load in plan.loads:
        parts = []
        for tool in TOOLS:
            found = [run for run in runs if (run.load, run.tool) == (load, tool)]
            requests = [run.requests for run in found]
            cpu_s = median(run.cpu_s for run in found)
            parts.append(f"{tool} {min(requests)}–{max(requests)} requests, {cpu_s:.0f} s of a core")
        yield f"{load}, a run: {'; '.join(parts)}"
    if cached := sum(run.cached for run in runs):
        yield f"[red]prompts of {cached} runs were in the prefix cache: their figures are too good"
    yield (
        "[green]the tools agree: no medians differ by more than a tool's repeats do"
        if agree(plan, runs)
        else "[red]the tools differ by more than their repeats do"
    )


def _stated(found: Agreement) -> dict[str, Any]:
    return asdict(found) | {
        "ours_median": found.ours.median,
        "theirs_median": found.theirs.median,
        "difference": found.difference,
        "spread": found.spread,
        "agrees": found.agrees,
    }
