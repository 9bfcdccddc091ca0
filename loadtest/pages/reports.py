"""The reports of a run, a sweep and a comparison: a page that needs no other file, reads on a dark
screen and prints on paper, and its figures as PNG files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from loadtest.measure.comparison import Difference, Run
from loadtest.measure.record import Record
from loadtest.measure.result import Result, ServerFacts
from loadtest.measure.soak import Finding, Look
from loadtest.measure.sweep import Sweep
from loadtest.pages import tables
from loadtest.pages.figures import run_plots, soak_plot, sweep_plots, versus_plots
from loadtest.pages.plots import GRID, INK, PALETTE, SHADE, Drawn, render, save
from loadtest.pages.tables import LONG_NAMES, Grid, Mark

PAGE = "report.html"
_DARK_PALETTE = ("#5db4e8", "#f0883e", "#3fc79a", "#e39bc5", "#9fd4f5", "#f2c14e", "#a8a9aa")
_NOTE = (
    "A difference is a change where the interval of the ratio leaves out 1, else noise. The interval covers"
    " the noise within the runs; a machine that was slower during one of them shows only in repeated runs."
)


@dataclass(frozen=True, slots=True)
class Section:
    """`doubts` are lists, each under its heading. A section without content is left out of the page."""

    title: str
    figures: Sequence[Drawn] = ()
    tables: Sequence[Grid] = ()
    doubts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    note: str = ""
    text: str = ""


def _printable(value: object) -> object:
    """No HTML may have control characters."""
    if isinstance(value, Markup):
        return value
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in str(value))


def _variables(ink: str, grid: str, shade: str, lines: Sequence[str]) -> Markup:
    pairs = {"ink": ink, "grid": grid, "shade": shade} | {f"line-{n}": line for n, line in enumerate(lines)}
    return Markup("".join(f"--{name}:{value};" for name, value in pairs.items()))


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=_printable,
    trim_blocks=True,
)
ENVIRONMENT.tests["mark"] = lambda cell: isinstance(cell, Mark)
ENVIRONMENT.globals |= {
    "light": _variables(INK, GRID, SHADE, PALETTE),
    "dark": _variables("#e4e5e6", "#3c3f43", "#24272a", _DARK_PALETTE),
}


def write(result: Result, records: Sequence[Record], folder: Path) -> list[Path]:
    """The files written. `records` are all of the run; the folder must exist."""
    drawn = {title: [render(p) for p in plots] for title, plots in run_plots(result, records).items()}
    grids = {"Errors": [tables.endings(result.requests)]}
    if result.gauges:
        grids["Server"] = [tables.gauges(result)]
    summary = (tables.objectives(result.slo), tables.latencies(result, LONG_NAMES), tables.rates(result))
    start_s, end_s = result.window_s
    window = {"measured": f"{end_s - start_s:.0f} s, from {start_s:.0f} s to {end_s:.0f} s of the run"}
    text = _document(
        f"Load test: {result.name}",
        {"": _where(result.started, result.machine, result.server) | window},
        [
            Section("Summary", tables=summary),
            *(Section(title, figures, grids.get(title, [])) for title, figures in drawn.items()),
            Section("Kinds of request", tables=[tables.kinds(result.by_kind)] if result.by_kind else []),
            _offered(result.profile),
        ],
        description=str(result.profile.get("description", "")),
        verdict=Mark("SLO met" if result.slo_met else "SLO missed", result.slo_met),
        doubts=result.doubts,
    )
    return _written(folder, text, [one for figures in drawn.values() for one in figures])


def write_sweep(sweep: Sweep, folder: Path) -> list[Path]:
    """The files written; the folder must exist."""
    drawn = [render(plot) for plot in sweep_plots(sweep)]
    doubts = {
        f"at {rung.rate_per_s:.3g} requests/s": rung.result.doubts
        for rung in sweep.rungs
        if rung.result.doubts
    }
    held = sweep.highest_rate_per_s is not None
    text = _document(
        f"Sweep: {sweep.name}",
        {"": _where(sweep.started, sweep.machine, sweep.server)},
        [
            Section("Against the offered rate", drawn),
            Section("Rates (latencies in ms)", tables=[tables.rungs(sweep)]),
            Section("Doubts", doubts=doubts),
            _offered(sweep.profile),
        ],
        verdict=Mark("SLO met" if held else "SLO missed", held),
        words=tables.sweep_words(sweep),
    )
    return _written(folder, text, drawn)


def write_soak(result: Result, looks: Sequence[Look], found: Finding, folder: Path) -> Path:
    return save(render(soak_plot(result, looks, found)), folder)


def versus_page(found: Sequence[Difference], runs: tuple[Run, Run], warnings: Sequence[str]) -> str:
    return _document(
        "Two load tests compared",
        {
            f"{name}: {title_of(run)}": _where(run.result.started, run.result.machine, run.result.server)
            for name, run in zip("AB", runs, strict=True)
        },
        [
            Section("Differences", tables=[tables.differences(found)], note=_NOTE),
            Section("Both runs in one plot", [render(plot) for plot in versus_plots(runs)]),
        ],
        doubts=warnings,
    )


def title_of(run: Run) -> str:
    return f"{run.result.name} against {run.result.server.url}, {run.result.started}"


def _document(
    title: str, runs: Mapping[str, Mapping[str, str]], sections: Sequence[Section], **more: object
) -> str:
    """`runs` are facts of each run, under its heading; page.html says what `more` there may be."""
    shown = [s for s in sections if s.figures or s.tables or s.doubts or s.note or s.text]
    return ENVIRONMENT.get_template("page.html").render(title=title, runs=runs, sections=shown, **more)


def _written(folder: Path, text: str, drawn: Iterable[Drawn]) -> list[Path]:
    page = folder / PAGE
    page.write_text(text, encoding="utf-8")
    return [page, *(save(one, folder) for one in drawn)]


def _where(started: str, machine: Mapping[str, Any], server: ServerFacts) -> dict[str, str]:
    cores = machine.get("cores")
    changes = " with changes" if machine.get("uncommitted_changes") else ""
    return {
        "server": f"{server.url} ({server.version})",
        "models": ", ".join(server.models) or "unknown",
        "started": started,
        "machine": f"{machine.get('cpu', 'unknown')}" + (f", {cores} cores" if cores else ""),
        "commit": str(machine.get("commit") or "unknown")[:12] + changes,
    }


def _offered(profile: Mapping[str, Any]) -> Section:
    return Section("Profile", text=json.dumps(profile, indent=2, ensure_ascii=False, default=str))
