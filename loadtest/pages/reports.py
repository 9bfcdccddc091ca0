"""What a run, a sweep and a comparison leave for people: a page, and its figures as PNG files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.measure.comparison import Difference, Run
from loadtest.measure.record import Record
from loadtest.measure.result import Result, Server
from loadtest.measure.soak import Finding, Look
from loadtest.measure.sweep import Sweep
from loadtest.pages import tables
from loadtest.pages.figures import run_plots, soak_plot, sweep_plots, versus_plots
from loadtest.pages.html import Markup, Section, badge, document, facts, figure, listed, table, tag
from loadtest.pages.plots import Drawn, render, save
from loadtest.pages.tables import LONG_NAMES, Mark

PAGE = "report.html"
_NOTE = (
    "A change is called one when the interval of the ratio leaves out 1, else noise. The interval covers the"
    " noise within the runs; a machine that was slower during one of them shows only in repeated runs."
)


def write(result: Result, records: Sequence[Record], folder: Path) -> list[Path]:
    """The files written. `records` are all of the run; the folder must exist."""
    drawn = {title: [render(p) for p in plots] for title, plots in run_plots(result, records).items()}
    grids = {"Errors": [tables.endings(result.requests)]}
    if result.gauges:
        grids["Server"] = [tables.gauges(result)]
    summary = (tables.objectives(result.slo), tables.latencies(result, LONG_NAMES), tables.rates(result))
    sections = [
        Section("Summary", [table(grid) for grid in summary]),
        *(
            Section(title, [*map(figure, figures), *map(table, grids.get(title, []))])
            for title, figures in drawn.items()
        ),
        Section("Kinds of request", [table(tables.kinds(result.by_kind))] if result.by_kind else []),
        _offered(result.profile),
    ]
    start_s, end_s = result.window_s
    window = {"measured": f"{end_s - start_s:.0f} s, from {start_s:.0f} s to {end_s:.0f} s of the run"}
    description = str(result.profile.get("description", ""))
    head = [
        *([tag("p", description)] if description else []),
        tag("p", badge(Mark("SLO met" if result.slo_met else "SLO missed", result.slo_met))),
        facts(_where(result.started, result.machine, result.server) | window),
        *listed(result.doubts),
    ]
    text = document(f"Load test: {result.name}", head, sections)
    return _written(folder, text, [one for figures in drawn.values() for one in figures])


def write_sweep(sweep: Sweep, folder: Path) -> list[Path]:
    """The files written; the folder must exist."""
    drawn = [render(plot) for plot in sweep_plots(sweep)]
    doubts = [
        part
        for rung in sweep.rungs
        if rung.result.doubts
        for part in (
            tag("h3", f"at {rung.rate_per_s:.3g} requests/s"),
            *listed(rung.result.doubts),
        )
    ]
    sections = [
        Section("Against the offered rate", [*map(figure, drawn)]),
        Section("Rungs (latencies in ms)", [table(tables.rungs(sweep))]),
        Section("Doubts", doubts),
        _offered(sweep.profile),
    ]
    held = sweep.highest_rate_per_s is not None
    verdict = badge(Mark("SLO held" if held else "SLO missed", held))
    head = [
        tag("p", verdict, f" {tables.sweep_words(sweep)}"),
        facts(_where(sweep.started, sweep.machine, sweep.server)),
    ]
    return _written(folder, document(f"Sweep: {sweep.name}", head, sections), drawn)


def write_soak(result: Result, looks: Sequence[Look], found: Finding, folder: Path) -> Path:
    return save(render(soak_plot(result, looks, found)), folder)


def versus_page(found: Sequence[Difference], runs: tuple[Run, Run], warnings: Sequence[str]) -> str:
    heads: list[Markup] = []
    for name, run in zip("AB", runs, strict=True):
        heads.append(tag("h3", f"{name}: {title_of(run)}"))
        heads.append(facts(_where(run.result.started, run.result.machine, run.result.server)))
    sections = [
        Section("Differences", [table(tables.differences(found)), tag("p", _NOTE, class_="note")]),
        Section("Both runs in one plot", [figure(render(plot)) for plot in versus_plots(runs)]),
    ]
    return document("Two load tests compared", [*heads, *listed(warnings)], sections)


def title_of(run: Run) -> str:
    return f"{run.result.name} against {run.result.server.url}, {run.result.started}"


def _written(folder: Path, text: str, drawn: Iterable[Drawn]) -> list[Path]:
    page = folder / PAGE
    page.write_text(text, encoding="utf-8")
    return [page, *(save(one, folder) for one in drawn)]


def _where(started: str, machine: Mapping[str, Any], server: Server) -> dict[str, str]:
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
    text = json.dumps(profile, indent=2, ensure_ascii=False, default=str)
    return Section("Profile", [tag("pre", text)])
