"""A run or a sweep on one screen of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest.measure.result import Result
from loadtest.measure.slo import Verdict
from loadtest.measure.statistics import Latency
from loadtest.measure.sweep import Sweep
from loadtest.pages.words import MEASURES, count, limit_words, number, sweep_words, verdict_words

WIDTH = 80
_COLOURS = {True: "green", False: "red", None: "yellow"}


def console_for(console: Console) -> Console:
    """A file has no width of its own."""
    return console if console.is_terminal else Console(file=console.file, width=WIDTH)


def show(result: Result, console: Console) -> None:
    for line in _head(result):
        console.print(line, highlight=False)
    console.print(_latencies(result))
    console.print(_objectives(result))
    for doubt in result.doubts:
        console.print(f"[yellow]doubt:[/] {escape(doubt)}", highlight=False)


def show_sweep(sweep: Sweep, console: Console) -> None:
    console.print(f"[bold]{escape(sweep.name)}[/], a sweep of {escape(sweep.server.url)}", highlight=False)
    console.print(_rungs(sweep))
    console.print(sweep_words(sweep), highlight=False)


def _head(result: Result) -> Iterator[str]:
    yield f"[bold]{escape(result.name)}[/] against {escape(result.server.url)}, {escape(result.started)}"
    r = result.requests
    yield (
        f"{count(r.total, 'request')} in {result.measured_s:.0f} s:"
        f" {r.complete} complete, {r.unexpected} failed"
        + (f" ({escape(_errors(r.errors))})" if r.errors else "")
    )
    yield (
        f"{result.tokens_per_s:.1f} tokens/s, {result.requests_per_s:.2f} requests/s"
        f" of {result.offered_per_s:.2f} offered, goodput {result.goodput_per_s:.2f}/s"
    )


def _errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in errors.items())


def _latencies(result: Result) -> Table:
    table = _table("ms", "p50", "p90", "p95", "p99", "mean", "max", "n")
    for measure, title in MEASURES.items():
        table.add_row(title, *_cells(getattr(result, f"{measure}_s")))
    return table


def _cells(found: Latency | None) -> Iterator[str]:
    if found is None:
        yield from "-" * 6
        yield "0"
        return
    for value in (found.p50, found.p90, found.p95, found.p99, found.mean, found.max):
        yield number(1e3 * value)
    yield str(found.n)


def _objectives(result: Result) -> Table:
    table = _table("objective", "limit", "found", "")
    for verdict in result.slo:
        limit, value = limit_words(verdict)
        table.add_row(verdict.name, limit, value, verdict_text(verdict))
    return table


def verdict_text(verdict: Verdict) -> str:
    return f"[{_COLOURS[verdict.met]}]{verdict_words(verdict.met)}[/]"


def _rungs(sweep: Sweep) -> Table:
    table = _table("rate/s", "good/s", "tokens/s", "TTFT p50", "p99", "gap p99", "failed", "SLO")
    for rung in sweep.rungs:
        met = rung.result.slo_met
        table.add_row(*_rung_cells(rung.rate_per_s, rung.result), f"[{_COLOURS[met]}]{verdict_words(met)}[/]")
    return table


def _rung_cells(rate_per_s: float, result: Result) -> Iterator[str]:
    yield f"{rate_per_s:.3g}"
    yield f"{result.goodput_per_s:.2f}"
    yield f"{result.tokens_per_s:.1f}"
    yield _ms(result.ttft_s, "p50")
    yield _ms(result.ttft_s, "p99")
    yield _ms(result.gap_s, "p99")
    yield str(result.requests.unexpected)


def _ms(found: Latency | None, statistic: str) -> str:
    value: Any = None if found is None else 1e3 * getattr(found, statistic)
    return number(value)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table
