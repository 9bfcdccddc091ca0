"""What a run leaves for people: report.html, and its figures as PNG files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.measure.record import Record
from loadtest.measure.result import Result, Server
from loadtest.pages import tables
from loadtest.pages.canvas import Drawn, Plot, render, save
from loadtest.pages.document import Section, badge, document, facts, figure
from loadtest.pages.markup import Markup, tag
from loadtest.pages.plots_server import server_plot
from loadtest.pages.plots_spread import spread_plot
from loadtest.pages.plots_time import error_plots, lag_plot, latency_plots, throughput_plot

PAGE = "report.html"


def write(result: Result, records: Sequence[Record], folder: Path) -> list[Path]:
    """The files written. `records` are all of the run; the folder must exist."""
    groups = {
        "Latency": [*latency_plots(result), spread_plot(records)],
        "Throughput": [throughput_plot(result)],
        "Server": [server_plot(result)],
        "Errors": error_plots(result),
        "Load generator": [lag_plot(result)],
    }
    drawn = {title: [render(plot) for plot in plots] for title, plots in groups.items()}
    text = document(f"Load test: {result.name}", _head(result), _sections(result, drawn))
    return written(folder, text, [figure for group in drawn.values() for figure in group])


def written(folder: Path, text: str, drawn: Iterable[Drawn]) -> list[Path]:
    page = folder / PAGE
    page.write_text(text, encoding="utf-8")
    return [page, *(save(one, folder) for one in drawn)]


def drawn_of(plots: Iterable[Plot]) -> list[Drawn]:
    return [render(plot) for plot in plots]


def where(started: str, machine: Mapping[str, Any], server: Server) -> dict[str, str]:
    return {
        "server": f"{server.url} ({server.version})",
        "models": ", ".join(server.models) or "unknown",
        "started": started,
        "machine": machine_words(machine),
        "commit": str(machine.get("commit") or "unknown")[:12]
        + (" with changes" if machine.get("uncommitted_changes") else ""),
    }


def machine_words(machine: Mapping[str, Any]) -> str:
    cores = machine.get("cores")
    return f"{machine.get('cpu', 'unknown')}" + (f", {cores} cores" if cores else "")


def as_offered(profile: Mapping[str, Any]) -> Section:
    text = json.dumps(profile, indent=2, ensure_ascii=False, default=str)
    return Section("Profile", [tag("pre", text)])


def _head(result: Result) -> list[Markup]:
    verdict = badge("SLO met" if result.slo_met else "SLO missed", result.slo_met)
    said = str(result.profile.get("description", ""))
    start_s, end_s = result.window_s
    window = {"measured": f"{end_s - start_s:.0f} s, from {start_s:.0f} s to {end_s:.0f} s of the run"}
    return [
        *([tag("p", said)] if said else []),
        tag("p", verdict),
        facts(where(result.started, result.machine, result.server) | window),
        *tables.doubts(result.doubts),
    ]


def _sections(result: Result, drawn: Mapping[str, Sequence[Drawn]]) -> list[Section]:
    numbers = [tables.objectives(result.slo), tables.latencies(result), tables.rates(result)]
    shown = {title: [figure(one) for one in group] for title, group in drawn.items()}
    return [
        Section("Summary", numbers),
        *(Section(title, [*figures, *_beside(title, result)]) for title, figures in shown.items()),
        Section("Kinds of request", [tables.kinds(result.by_kind)] if result.by_kind else []),
        as_offered(result.profile),
    ]


def _beside(title: str, result: Result) -> list[Markup]:
    """The table that belongs below a section's figures."""
    if title == "Server" and result.gauges:
        return [tables.gauges(result)]
    return [tables.endings(result.requests)] if title == "Errors" else []
