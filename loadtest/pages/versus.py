"""Two runs beside each other: a table for the terminal, and a page with both in each plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from matplotlib.axes import Axes
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest.measure.comparison import Change, Difference, Run
from loadtest.measure.observed import measured
from loadtest.measure.timeline import Window
from loadtest.pages import tables
from loadtest.pages.axes import finish
from loadtest.pages.canvas import PALETTE, Plot
from loadtest.pages.document import Section, badge, document, facts, figure
from loadtest.pages.markup import Markup, table, tag
from loadtest.pages.plots_spread import steps, widen
from loadtest.pages.report import drawn_of, where
from loadtest.pages.words import number

_COLUMNS = ("", "A", "B", "B / A", "99 % interval", "")
_COLOURS = {Change.BETTER: "green", Change.WORSE: "red", Change.NOISE: "dim", Change.UNKNOWN: "yellow"}
_MET = {Change.BETTER: True, Change.WORSE: False, Change.NOISE: None, Change.UNKNOWN: None}
_NAMES, _STYLES = ("A", "B"), ("-", "--")
_Pair = tuple[Run, Run]


def show_versus(found: Sequence[Difference], runs: _Pair, warnings: Sequence[str], console: Console) -> None:
    for name, run in zip(_NAMES, runs, strict=True):
        console.print(f"{name}: {escape(_title(run))}", highlight=False)
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for index, column in enumerate(_COLUMNS):
        shown.add_column(column, justify="right" if 0 < index < 5 else "left")
    for difference in found:
        change = difference.change
        shown.add_row(*_cells(difference), f"[{_COLOURS[change]}]{_short(change)}[/]")
    console.print(shown)
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def versus_page(found: Sequence[Difference], runs: _Pair, warnings: Sequence[str]) -> str:
    rows = [(*_cells(d), badge(d.change.value, _MET[d.change])) for d in found]
    heads = [
        part
        for name, run in zip(_NAMES, runs, strict=True)
        for part in (tag("h3", f"{name}: {_title(run)}"), _facts(run))
    ]
    sections = [
        Section("Differences", [table(_COLUMNS, rows), tag("p", _NOTE, class_="note")]),
        Section("Both runs in one plot", [figure(one) for one in drawn_of(_plots(runs))]),
    ]
    return document("Two load tests compared", [*heads, *tables.doubts(tuple(warnings))], sections)


_NOTE = (
    "A change is called one when the interval of the ratio leaves out 1. The interval covers the noise within"
    " the runs; a machine that was slower during one of them shows only in repeated runs."
)


def _title(run: Run) -> str:
    return f"{run.result.name} against {run.result.server.url}, {run.result.started}"


def _facts(run: Run) -> Markup:
    return facts(where(run.result.started, run.result.machine, run.result.server))


def _cells(difference: Difference) -> Iterator[str]:
    is_time = difference.name.endswith("_s") and not difference.name.endswith("_per_s")
    scale = 1e3 if is_time else 1.0
    yield f"{difference.name.removesuffix('_s')}, ms" if is_time else difference.name
    for value in (difference.a, difference.b):
        yield number(None if value is None else scale * value)
    yield _ratio(difference.ratio)
    known = difference.low is not None
    yield f"{_ratio(difference.low)} to {_ratio(difference.high)}" if known else "-"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _short(change: Change) -> str:
    return {Change.NOISE: "noise", Change.UNKNOWN: "unknown"}.get(change, change.value)


def _plots(runs: _Pair) -> list[Plot]:
    return [
        Plot("ttft", "Time to first token over time", _MEDIANS, 1, _over_time(runs, "ms", _band("ttft_s"))),
        Plot("gap", "Gap between responses over time", _MEDIANS, 1, _over_time(runs, "ms", _band("gap_s"))),
        Plot("spread", "Distribution of the time to first token", "", 1, lambda a: _spread(a[0], runs)),
        Plot("tokens", "Output tokens per second", "", 1, _over_time(runs, "tokens/s", _TOKENS)),
        Plot("in-flight", "Requests in flight", "", 1, _over_time(runs, "requests", _IN_FLIGHT)),
    ]


_MEDIANS = "Medians of each window are strong lines, 99th percentiles faint ones."
_Curves = Sequence[tuple[str, float, Callable[[Window], float | None]]]
_TOKENS: _Curves = (("", 1.0, lambda window: window.tokens_per_s),)
_IN_FLIGHT: _Curves = (("", 1.0, lambda window: window.in_flight),)


def _band(measure: str) -> _Curves:
    def value(percentile: str) -> Callable[[Window], float | None]:
        def of(window: Window) -> float | None:
            band = getattr(window, measure)
            return None if band is None else 1e3 * float(getattr(band, percentile))

        return of

    return ((" p50", 1.0, value("p50")), (" p99", 0.4, value("p99")))


def _over_time(runs: _Pair, unit: str, curves: _Curves) -> Callable[[list[Axes]], None]:
    def draw(axes: list[Axes]) -> None:
        for index, run in enumerate(runs):
            for suffix, alpha, value in curves:
                found = [(window.t_s, value(window)) for window in run.result.timeline]
                points = [(at_s, y) for at_s, y in found if y is not None]
                times, values = [at_s for at_s, _ in points], [y for _, y in points]
                label, colour = f"{_NAMES[index]}{suffix}", PALETTE[index]
                axes[0].plot(times, values, _STYLES[index], color=colour, alpha=alpha, label=label)
        finish(axes[0], "seconds since the start of the run", unit)

    return draw


def _spread(axis: Axes, runs: _Pair) -> None:
    spreads = [[1e3 * r.ttft_s for r in measured(run.records) if r.ttft_s is not None] for run in runs]
    for index, values in enumerate(spreads):
        if values:
            steps(axis, values, _NAMES[index], PALETTE[index], _STYLES[index])
    widen(axis, [value for values in spreads for value in values])
    finish(axis, "time to first token, ms", "per cent")
    axis.set_ylim(0, 101)
