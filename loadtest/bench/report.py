"""What a run found, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtest.bench.plan import TITLES, Plan
from loadtest.bench.targets import Measured, Verdict, verdicts
from loadtest.sample import Sample

Json = dict[str, Any]
_WORDS = {True: "[green]met", False: "[red]missed", None: "[yellow]not measured"}
_WIDTH = 110
_SIGNS = {">=": "≥", "<=": "≤", "<": "<"}


def to_json(plan: Plan, machine: Json, found: Measured) -> Json:
    return {
        "machine": machine,
        "plan": asdict(plan),
        "samples": [asdict(s) | {"tokens_per_s": s.tokens_per_s} for s in found.samples],
        "steps": [asdict(step) for step in found.steps],
        "footprint": asdict(found.footprint),
        "quality": dict(found.quality),
        "prefix_cache_hits": found.hits,
        "verdicts": [asdict(verdict) | {"met": verdict.met} for verdict in verdicts(found)],
    }


def show(plan: Plan, machine: Json, found: Measured) -> None:
    console = wide_console()
    console.print(_throughput(plan, found.samples))
    console.print(targets_table(verdicts(found), quick=plan.quick))
    console.print(where(machine))
    if found.hits:
        console.print(
            f"[red]{found.hits:.0f} prompt tokens came from the prefix cache: the figures are too good"
        )


def wide_console() -> Console:
    console = Console()
    # A file has no width of its own.
    return console if console.is_terminal else Console(width=_WIDTH)


def where(machine: Json) -> str:
    """The machine, the level of its kernels, the day and the commit, in one line."""
    changed = " with changes" if machine["uncommitted_changes"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, kernels {machine['kernels'] or 'none'}, "
        f"{machine['date']}, commit {machine['commit']}{changed}"
    )


def _throughput(plan: Plan, samples: Sequence[Sample]) -> Table:
    title = (
        f"{plan.tokens_in} tokens in, {plan.tokens_out} out, greedy; {plan.slots} slots;"
        f" medians of {plan.repeats}, times in ms"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("")
    columns = ("streams", "tokens/s", "least to most", "decoding", "TTFT p50", "p90", "ITL p50", "p90")
    for column in columns:
        table.add_column(column, justify="right")
    for row in TITLES:
        for streams in sorted({s.streams for s in samples if s.row == row}):
            found = [s for s in samples if (s.row, s.streams) == (row, streams)]
            table.add_row(TITLES[row], str(streams), *_cells(found))
    return table


def _cells(found: Sequence[Sample]) -> Iterator[str]:
    rates = [sample.tokens_per_s for sample in found]
    yield f"{median(rates):.0f}"
    yield f"{min(rates):.0f} to {max(rates):.0f}"
    decode = [s.decode_tokens_per_s for s in found if s.decode_tokens_per_s is not None]
    yield f"{median(decode):.0f}" if decode else "-"
    yield f"{_ms(s.ttft_p50_s for s in found):.0f}"
    yield f"{_ms(s.ttft_p90_s for s in found):.0f}"
    yield f"{_ms(s.itl_p50_s for s in found):.1f}"
    yield f"{_ms(s.itl_p90_s for s in found):.1f}"


def _ms(seconds: Iterable[float]) -> float:
    return 1e3 * median(seconds)


def targets_table(found: Sequence[Verdict], *, quick: bool) -> Table:
    title = "targets" + (", of a quick run: the figures mean nothing" if quick else "")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for column in ("", "value", "least to most", "target", ""):
        table.add_column(column)
    for verdict in found:
        table.add_row(
            verdict.name + (f"\n[dim]  {verdict.note}" if verdict.note else ""),
            _number(verdict.value),
            "" if verdict.low is None else f"{_number(verdict.low)} to {_number(verdict.high)}",
            f"{_SIGNS[verdict.relation]} {verdict.target:g}",
            _WORDS[verdict.met],
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value >= 10 else f"{value:.3f}"
