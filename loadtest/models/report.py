"""What a run found, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.table import Table

from loadtest.bench.report import Json, targets_table, where, wide_console
from loadtest.models.plan import TITLES, Plan
from loadtest.models.targets import Measured, verdicts
from loadtest.models.versus import Sample

_FACTS = ("name", "precision", "model", "size_bytes", "quality")


def to_json(plan: Plan, machine: Json, found: Measured) -> Json:
    return {
        "machine": machine,
        "plan": asdict(plan),
        "samples": [asdict(s) | {"tokens_per_s": s.tokens_per_s} for s in found.samples],
        "builds": [asdict(build) for build in found.builds],
        "engines": [{fact: manifest[fact] for fact in _FACTS} for manifest in found.manifests.values()],
        "verdicts": [asdict(verdict) | {"met": verdict.met} for verdict in verdicts(plan, found)],
    }


def show(plan: Plan, machine: Json, found: Measured) -> None:
    console = wide_console()
    if found.samples:
        console.print(_rates(plan, found))
    console.print(targets_table(verdicts(plan, found), quick=plan.quick))
    console.print(where(machine))


def _rates(plan: Plan, found: Measured) -> Table:
    title = f"random weights; tokens in as below, {plan.tokens_out} out; medians of {plan.repeats}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for column in ("", "", ""):
        table.add_column(column)
    for column in ("tokens/s", "least to most", "TTFT, ms"):
        table.add_column(column, justify="right")
    for case in plan.cases:
        parameters = found.manifests[case.shape.name]["model"]["parameters"]
        model = f"{case.shape.name} {parameters / 1e6:.0f}M, {case.tokens_in} in"
        for load in case.loads:
            for side, title in TITLES.items():
                key = (case.shape.name, load, side)
                samples = [s for s in found.samples if (s.model, s.load, s.side) == key]
                table.add_row(model, f"{load}", title, *_cells(samples))
                model = ""
    return table


def _cells(samples: Sequence[Sample]) -> Iterator[str]:
    rates = [sample.tokens_per_s for sample in samples]
    yield f"{median(rates):.1f}"
    yield f"{min(rates):.1f} to {max(rates):.1f}"
    firsts = [sample.first_token_s for sample in samples if sample.first_token_s is not None]
    yield f"{1e3 * median(firsts):.0f}" if firsts else "-"
