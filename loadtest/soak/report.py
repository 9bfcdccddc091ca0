"""A soak test on one screen, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtest.soak.finding import Finding
from loadtest.soak.slope import Slope
from loadtest.soak.verdicts import Drift, Trend
from loadtest.soak.watch import Look

VERSION = 1
_WIDTH = 100
_MET = {True: "[green]met", False: "[red]missed"}
_TRENDS = {
    Trend.STEADY: "[green]steady",
    Trend.GROWING: "[red]growing",
    Trend.UNDECIDED: "[yellow]undecided: run it longer",
}

# What is asked, what was found, the limit, the verdict.
Row = tuple[str, str, str, str]


def to_json(found: Finding, looks: Sequence[Look], machine: dict[str, Any], *, interrupted: bool) -> Any:
    return {
        "version": VERSION,
        "machine": machine,
        "holds": found.holds,
        "interrupted": interrupted,
        "finding": asdict(found)
        | {
            "rss_trend": found.rss_trend.value,
            "drifts": [asdict(drift) | {"ratio": drift.ratio} for drift in found.drifts],
        },
        "memory": {
            "at_s": [round(look.at_s, 3) for look in looks],
            "rss_bytes": [look.rss for look in looks],
            "pss_bytes": [look.pss for look in looks],
            "processes": [look.processes for look in looks],
        },
    }


def show(found: Finding, console: Console) -> None:
    # A file has no width of its own.
    wide = console if console.is_terminal else Console(file=console.file, width=_WIDTH)
    title = (
        f"{found.measured_s / 60:.1f} min at {found.rate_per_s:g} requests/s:"
        f" {found.requests:,} requests, {found.tokens_out:,} tokens"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("")
    for column in ("found", "limit", ""):
        table.add_column(column, justify="right")
    for row in _rows(found):
        table.add_row(*row)
    wide.print(table)
    wide.print(
        f"RSS {found.rss_first_mb:,.0f} MB once settled ({found.settle_s / 60:.1f} min),"
        f" {found.rss_last_mb:,.0f} MB at the end; peak {found.rss_peak_mb:,.0f} MB,"
        f" PSS {found.pss_peak_mb:,.0f} MB; PSS slope, MB/h: {_slope(found.pss_slope)}"
    )
    if found.ended:
        wide.print("[red]the server ended during the test")


def _rows(found: Finding) -> Iterator[Row]:
    yield "errors", f"{found.errors:,}", "0", _MET[found.errors == 0]
    limit = f"{found.limits.growth_mb_per_h:g}"
    yield "RSS slope, MB/h (95 %)", _slope(found.rss_slope), limit, _TRENDS[found.rss_trend]
    for drift in found.drifts:
        yield _drift(drift, found)


def _drift(drift: Drift, found: Finding) -> Row:
    title, limit = f"p99 {drift.name}, last third by first", f"{found.limits.drift:g}"
    if drift.ratio is None or drift.first_p99_s is None or drift.last_p99_s is None:
        return title, "not measured", limit, _MET[False]
    values = f"{drift.ratio:.2f} ({drift.last_p99_s * 1000:,.0f} ms by {drift.first_p99_s * 1000:,.0f} ms)"
    return title, values, limit, _MET[drift.holds(found.limits)]


def _slope(slope: Slope | None) -> str:
    return "too few looks" if slope is None else f"{slope.value:+.1f} ({slope.low:+.1f} to {slope.high:+.1f})"
