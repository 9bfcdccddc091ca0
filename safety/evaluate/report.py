"""What a run found: as JSON, as tables in a terminal, and as a page that needs no other file.

The page's plots are SVG that its template draws; nothing on it is loaded or run, and every text of a model is
escaped. Colours follow the reader's light or dark screen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from rich.table import Table

from safety.evaluate.rows import Drift, Row

VERSION: Final = 1
WHOLE: Final = "all"
# What a page shows of the answers: enough to judge the judges.
_SHOWN_TEXTS: Final = 8
_SHOWN_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class Measured:
    """A model with its rows; `texts` are some of its answers, as (set, item, text)."""

    name: str
    facts: Mapping[str, str]
    rows: Sequence[Row]
    texts: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """`models` are one, or two that are compared: `drift` is the second's from the first. `sample` is None
    where every item was asked; `notes` say what was left out.
    """

    models: Sequence[Measured]
    sets: Mapping[str, int]
    items: str
    sample: int | None
    seed: int
    notes: Sequence[str]
    drift: Sequence[Drift] = ()

    def to_json(self) -> str:
        """Of numbers that JSON lacks, such as that of no items, null."""
        return json.dumps(_finite({"version": VERSION} | asdict(self)), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval on the axis of its plot, 0 to 100; `series` numbers the model."""

    at: float
    low: float
    high: float
    series: int
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    label: str
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines of marks over one axis, whose `ticks` are (place, label)."""

    title: str
    lines: Sequence[Line]
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    columns: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    plots: Sequence[Plot]
    grid: Grid


def number(value: float) -> str:
    """Four decimals below ten, as evaluations are compared; NaN where nothing was measured."""
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"


def tables(report: Report) -> Iterator[Table]:
    """For a terminal: whole sets only, with the intervals of 95 %, and the drift."""
    found = Table(title="Whole sets", title_justify="left")
    for column in ("set", "protocol", "measure"):
        found.add_column(column, overflow="fold")
    for model in report.models:
        found.add_column(model.name, justify="right")
    found.add_column("n", justify="right")
    for key, rows in _aligned(report.models, whole=True):
        n = next(row.n for row in rows if row)
        found.add_row(key[0], key[1], key[3], *map(_brief, rows), str(n))
    yield found
    if report.drift:
        yield _drift_table(report.drift)


def _brief(row: Row | None) -> str:
    if row is None or math.isnan(row.value):
        return "–"
    return f"{row.value:.3g}" + (
        f" ({row.low:.3g}–{row.high:.3g})" if math.isfinite(row.low + row.high) else ""
    )


def _drift_table(drift: Sequence[Drift]) -> Table:
    found = Table(title="Drift: what the second model prefers otherwise", title_justify="left")
    for column in ("set", "protocol", "flips", "95 %", "p", "KL", "n"):
        named = column in ("set", "protocol")
        found.add_column(column, justify="left" if named else "right", overflow="fold")
    for one in drift:
        if not one.category:
            found.add_row(one.set, one.protocol, *_drift_cells(one))
    return found


def _drift_cells(one: Drift) -> list[str]:
    p = "–" if one.p is None else number(one.p)
    return [number(one.flips), _interval(one.low, one.high), p, number(one.kl), str(one.n)]


def _interval(low: float, high: float) -> str:
    return f"{number(low)}–{number(high)}" if math.isfinite(low + high) else ""


Key = tuple[str, str, str, str]


def _aligned(models: Sequence[Measured], *, whole: bool) -> Iterator[tuple[Key, list[Row | None]]]:
    """By (set, protocol, category, measure) each model's row, in the order of the first model that has it."""
    by_key = [
        {(row.set, row.protocol, row.category, row.measure): row for row in model.rows} for model in models
    ]
    keys = dict.fromkeys(key for rows in by_key for key in rows)
    for key in keys:
        if not (whole and key[2]):
            yield key, [rows.get(key) for rows in by_key]


def sections(report: Report) -> list[Section]:
    """One for each set and protocol, with a plot for each measure; the drift is the first."""
    aligned = sorted(_aligned(report.models, whole=False), key=lambda one: one[0][:2])
    found = [_drift_section(report.drift)] if report.drift else []
    for (name, protocol), group in groupby(aligned, key=lambda one: one[0][:2]):
        lines = list(group)
        measures = dict.fromkeys(key[3] for key, _ in lines)
        plots = [_plot(measure, [one for one in lines if one[0][3] == measure]) for measure in measures]
        title = f"{name}: {protocol}" if protocol else name
        found.append(Section(title, plots, _grid(report.models, lines)))
    return found


def _plot(measure: str, lines: Sequence[tuple[Key, list[Row | None]]]) -> Plot:
    marks = [(key[2] or WHOLE, row, series) for key, rows in lines for series, row in enumerate(rows) if row]
    axis = Axis.over([value for _, row, _ in marks for value in (row.value, row.low, row.high)])
    drawn = [
        Line(
            label, [axis.mark(row.value, row.low, row.high, series, _hover(row)) for _, row, series in group]
        )
        for label, group in groupby(marks, key=lambda one: one[0])
    ]
    return Plot(measure, drawn, axis.ticks())


def _hover(row: Row) -> str:
    interval = _interval(row.low, row.high)
    return (
        f"{row.category or WHOLE}: {number(row.value)}"
        + (f" ({interval}), " if interval else ", ")
        + f"n {row.n}"
    )


@dataclass(frozen=True, slots=True)
class Axis:
    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Axis:
        """Shares have 0 to 1; others what the values span, with zero."""
        finite = [value for value in values if math.isfinite(value)]
        low, high = min([0.0, *finite]), max([0.0, *finite])
        if low >= 0 and 0.2 < high <= 1:
            high = 1.0
        return cls(low, high if high > low else low + 1)

    def mark(self, value: float, low: float, high: float, series: int, title: str) -> Mark:
        low, high = (bound if math.isfinite(bound) else value for bound in (low, high))
        return Mark(self.place(value), self.place(low), self.place(high), series, title)

    def place(self, value: float) -> float:
        if not math.isfinite(value):
            return 0.0
        return round(min(max(100 * (value - self.low) / (self.high - self.low), 0.0), 100.0), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """At round numbers: multiples of 1, 2 or 5 times a power of ten, three to six of them."""
        span = self.high - self.low
        unit = 10.0 ** math.floor(math.log10(span / 2))
        step = unit * next(each for each in (1, 2, 5, 10) if span / (unit * each) < 6)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self.place(at * step), f"{at * step:.3g}") for at in range(first, last + 1)]


def _grid(models: Sequence[Measured], lines: Sequence[tuple[Key, list[Row | None]]]) -> Grid:
    heads = [Cell("category"), Cell("measure")]
    heads += [Cell(model.name, "; ".join(f"{k} {v}" for k, v in model.facts.items())) for model in models]
    rows = []
    for key, found in lines:
        n = next(row.n for row in found if row)
        values = [Cell(number(row.value), _hover(row)) if row else Cell("–") for row in found]
        rows.append([Cell(key[2] or WHOLE), Cell(key[3]), *values, Cell(str(n))])
    return Grid([*heads, Cell("n", "items")], rows)


def _drift_section(drift: Sequence[Drift]) -> Section:
    whole = [one for one in drift if not one.category]
    axis = Axis.over(value for one in whole for value in (one.flips, one.low, one.high))
    lines = [
        Line(
            " · ".join(part for part in (one.set, one.protocol) if part),
            [axis.mark(one.flips, one.low, one.high, 0, f"{number(one.flips)} of {one.n} items flip")],
        )
        for one in whole
    ]
    heads = [
        Cell("set"),
        Cell("protocol"),
        Cell("category"),
        Cell(
            "flips",
            "the share of items on which the second model prefers another option, or answers otherwise",
        ),
        Cell("95 %"),
        Cell("p", "McNemar's exact probability of flips as uneven as these, if none were for the better"),
        Cell("KL", "mean divergence of the second model's preferences from the first's, in nats"),
        Cell("n", "items"),
    ]
    rows = [
        [Cell(one.set), Cell(one.protocol), Cell(one.category or WHOLE), *map(Cell, _drift_cells(one))]
        for one in drift
    ]
    return Section("Drift", [Plot("flips", lines, axis.ticks())], Grid(heads, rows))


def _printable(value: object) -> object:
    """No HTML may have control characters."""
    if isinstance(value, Markup):
        return value
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in str(value))


def page(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = " against ".join(model.name for model in report.models)
    texts = {
        model.name: [
            (name, item, text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…")
            for name, item, text in model.texts
        ]
        for model in report.models
    }
    return environment.get_template("page.html").render(
        title=f"Safety: {names}", report=report, sections=sections(report), texts=texts
    )


def some_texts(found: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The first of each set, spread over no more than a page shows."""
    kept: dict[str, list[tuple[str, str, str]]] = {}
    for one in found:
        kept.setdefault(one[0], []).append(one)
    return [text for texts in kept.values() for text in texts[:_SHOWN_TEXTS]]


def write(report: Report, folder: Path) -> list[Path]:
    """The files written, each whole or not at all."""
    written: dict[str, Any] = {"report.json": report.to_json(), "report.html": page(report)}
    for name, text in written.items():
        part = folder / f".{name}.part"
        part.write_text(text, "utf-8", errors="backslashreplace")
        part.rename(folder / name)
    return [folder / name for name in written]
