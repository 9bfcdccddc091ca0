"""A soak test: memory and latency over its time, and its verdicts on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtest.measure.result import Result
from loadtest.measure.soak import MB, Drift, Finding, Look, Slope, Trend
from loadtest.pages.axes import finish
from loadtest.pages.canvas import PALETTE, SHADE, Plot, render, save

_WIDTH = 100
_MET = {True: "[green]met", False: "[red]missed"}
_TRENDS = {
    Trend.STEADY: "[green]steady",
    Trend.GROWING: "[red]growing",
    Trend.UNDECIDED: "[yellow]undecided: run it longer",
}

# What is asked, what was found, the limit, the verdict.
Row = tuple[str, str, str, str]
_MINUTE_S = 60.0


def write_soak(result: Result, looks: Sequence[Look], found: Finding, folder: Path) -> Path:
    return save(render(soak_plot(result, looks, found)), folder)


def soak_plot(result: Result, looks: Sequence[Look], found: Finding) -> Plot:
    def draw(axes: list[Axes]) -> None:
        _memory(axes[0], looks, found)
        _latency(axes[1], result, "ttft_s", "TTFT, s")
        _latency(axes[2], result, "itl_s", "ITL, s")
        for axis in axes:
            axis.set_xlim(0, max(looks[-1].at_s, _MINUTE_S / 60) / _MINUTE_S)

    note = "Memory from when the load was started; latencies from its first request, some seconds later."
    return Plot("soak", "Memory and latency over time", note, 3, draw)


def _memory(axis: Axes, looks: Sequence[Look], found: Finding) -> None:
    minutes = [look.at_s / _MINUTE_S for look in looks]
    axis.plot(minutes, [look.rss / MB for look in looks], color=PALETTE[0], label="RSS")
    axis.plot(minutes, [look.pss / MB for look in looks], color=PALETTE[1], linestyle="--", label="PSS")
    axis.axvspan(0, found.settle_s / _MINUTE_S, color=SHADE, zorder=0, linewidth=0)
    _line(axis, looks, found)
    finish(axis, "minutes", "MB, all processes")


def _line(axis: Axes, looks: Sequence[Look], found: Finding) -> None:
    """The slope, through the middle of what it was fitted to."""
    settled = [look for look in looks if look.at_s >= found.settle_s]
    if found.rss_slope is None or not settled:
        return
    middle_s, level = median(look.at_s for look in settled), median(look.rss for look in settled) / MB
    ends_s = (settled[0].at_s, settled[-1].at_s)
    values = [level + found.rss_slope.value * (at_s - middle_s) / 3600 for at_s in ends_s]
    label = f"slope {found.rss_slope.value:+.1f} MB/h"
    axis.plot([at_s / _MINUTE_S for at_s in ends_s], values, color=PALETTE[2], linestyle=":", label=label)


def _latency(axis: Axes, result: Result, name: str, title: str) -> None:
    half_s = result.window_width_s / 2
    for number, percentile in enumerate(("p50", "p99")):
        found = [(w.t_s + half_s, getattr(w, name)) for w in result.timeline if getattr(w, name) is not None]
        minutes = [at_s / _MINUTE_S for at_s, _ in found]
        values = [getattr(latency, percentile) for _, latency in found]
        axis.plot(minutes, values, color=PALETTE[number], label=percentile)
    finish(axis, "minutes", title)


def show_soak(found: Finding, console: Console) -> None:
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
