"""What a sweep leaves for people: latency, goodput and tokens against the offered rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loadtest.measure.result import Result
from loadtest.measure.statistics import Latency
from loadtest.measure.sweep import Sweep
from loadtest.pages import tables
from loadtest.pages.document import Section, badge, document, facts, figure
from loadtest.pages.markup import Markup, table, tag
from loadtest.pages.plots_sweep import sweep_plots
from loadtest.pages.report import as_offered, drawn_of, where, written
from loadtest.pages.words import number, sweep_words

_COLUMNS = (
    "offered requests/s", "complete/s", "goodput/s", "tokens/s", "TTFT p50, ms", "p99", "gap p50, ms", "p99",
    "TPOT p50, ms", "p99", "failed", "SLO",
)  # fmt: skip


def write_sweep(sweep: Sweep, folder: Path) -> list[Path]:
    """The files written; the folder must exist."""
    drawn = drawn_of(sweep_plots(sweep))
    rungs = table(_COLUMNS, [(number(r.rate_per_s), *_cells(r.result)) for r in sweep.rungs])
    sections = [
        Section("Against the offered rate", [figure(one) for one in drawn]),
        Section("Rungs", [rungs]),
        Section("Doubts", list(_doubts(sweep))),
        as_offered(sweep.profile),
    ]
    return written(folder, document(f"Sweep: {sweep.name}", _head(sweep), sections), drawn)


def _head(sweep: Sweep) -> list[Markup]:
    held = sweep.highest_rate_per_s is not None
    verdict = badge("SLO held" if held else "SLO missed", held)
    return [
        tag("p", verdict, f" {sweep_words(sweep)}"),
        facts(where(sweep.started, sweep.machine, sweep.server)),
    ]


def _cells(result: Result) -> Iterator[str]:
    yield from map(number, (result.requests_per_s, result.goodput_per_s, result.tokens_per_s))
    for found in (result.ttft_s, result.gap_s, result.tpot_s):
        yield from _milliseconds(found)
    yield f"{result.requests.unexpected:,}"
    yield tables.verdict_badge(result.slo_met)


def _milliseconds(found: Latency | None) -> Iterator[str]:
    yield number(None if found is None else 1e3 * found.p50)
    yield number(None if found is None else 1e3 * found.p99)


def _doubts(sweep: Sweep) -> Iterator[Markup]:
    for rung in sweep.rungs:
        if rung.result.doubts:
            yield tag("h3", f"at {rung.rate_per_s:.3g} requests/s")
            yield from tables.doubts(rung.result.doubts)
