"""A run, a sweep, two runs or a soak test on one screen of the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest.measure.comparison import Difference, Run
from loadtest.measure.result import Result
from loadtest.measure.soak import Finding
from loadtest.measure.sweep import Sweep
from loadtest.pages import tables
from loadtest.pages.reports import title_of
from loadtest.pages.tables import SHORT_NAMES, Grid, Mark

WIDTH, _SOAK_WIDTH = 80, 100
_COLOURS = {True: "green", False: "red", None: "yellow"}
# Of the table of a sweep, for 80 columns.
_RUNGS = {
    "rate/s": "rate/s", "goodput/s": "good/s", "tokens/s": "tokens/s", "TTFT p50": "TTFT p50",
    "TTFT p99": "p99",
    "gap p99": "gap p99", "failed": "failed", "SLO": "SLO",
}  # fmt: skip


def _console_for(console: Console, width: int = WIDTH) -> Console:
    """A file has no width of its own."""
    return console if console.is_terminal else Console(file=console.file, width=width)


def _table(grid: Grid) -> Table:
    def cell(found: str | Mark) -> str:
        return f"[{_COLOURS[found.met]}]{found.text}[/]" if isinstance(found, Mark) else escape(found)

    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for index, column in enumerate(grid.columns):
        table.add_column(column, justify="right" if index else "left")
    for row in grid.rows:
        table.add_row(*map(cell, row))
    return table


def show(result: Result, console: Console) -> None:
    r = result.requests
    errors = f" ({', '.join(f'{name} {number}' for name, number in r.errors.items())})" if r.errors else ""
    console.print(
        f"[bold]{escape(result.name)}[/] against {escape(result.server.url)}, {escape(result.started)}\n"
        f"{r.total:,} request{'' if r.total == 1 else 's'} in {result.measured_s:.0f} s:"
        f" {r.complete} complete, {r.unexpected} failed{escape(errors)}\n"
        f"{result.tokens_per_s:.1f} tokens/s, {result.requests_per_s:.2f} requests/s"
        f" of {result.offered_per_s:.2f} offered, goodput {result.goodput_per_s:.2f}/s",
        highlight=False,
    )
    console.print(_table(tables.latencies(result, SHORT_NAMES)))
    console.print(_table(tables.objectives(result.slo)))
    for doubt in result.doubts:
        console.print(f"[yellow]doubt:[/] {escape(doubt)}", highlight=False)


def show_sweep(sweep: Sweep, console: Console) -> None:
    console.print(f"[bold]{escape(sweep.name)}[/], a sweep of {escape(sweep.server.url)}", highlight=False)
    console.print(_table(tables.rungs(sweep).only(_RUNGS)))
    console.print(tables.sweep_words(sweep), highlight=False)


def show_versus(
    found: Sequence[Difference], runs: tuple[Run, Run], warnings: Sequence[str], console: Console
) -> None:
    console = _console_for(console)
    for name, run in zip("AB", runs, strict=True):
        console.print(f"{name}: {escape(title_of(run))}", highlight=False)
    console.print(_table(tables.differences(found)))
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def show_soak(found: Finding, console: Console) -> None:
    console = _console_for(console, _SOAK_WIDTH)
    console.print(
        f"{found.measured_s / 60:.1f} min at {found.rate_per_s:g} requests/s:"
        f" {found.requests:,} requests, {found.tokens_out:,} tokens"
    )
    console.print(_table(tables.soak(found)))
    console.print(
        f"RSS {found.rss_first_mb:,.0f} MB once settled ({found.settle_s / 60:.1f} min),"
        f" {found.rss_last_mb:,.0f} MB at the end; peak {found.rss_peak_mb:,.0f} MB,"
        f" PSS {found.pss_peak_mb:,.0f} MB; PSS slope, MB/h: {tables.slope(found.pss_slope)}"
    )
    if found.ended:
        console.print("[red]the server ended during the test")
