"""What a run found, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtest.artifacts import MODEL
from loadtest.bench.measure import IDLE_CORES, Found
from loadtest.bench.plan import Load, Model, Plan, Row, Setting
from loadtest.bench.quality import Quality
from loadtest.bench.sample import Sample
from loadtest.bench.targets import Verdict, samples_of, verdicts

Json = dict[str, Any]
Column = tuple[str, str, float, int]
_FACTS = ("name", "precision", "model", "size_bytes", "quality")
_WORDS = {True: "[green]met", False: "[red]missed", None: "[yellow]not measured"}
_SIGNS = {">=": "≥", "<=": "≤", "<": "<"}
_WIDTH = 110
# Columns: title, field of a sample, scale, decimals.
_COLUMNS = (
    ("decode/s", "decode_tokens_per_s", 1.0, 0),
    ("TTFT ms", "ttft_p50_s", 1e3, 0),
    ("p90", "ttft_p90_s", 1e3, 0),
    ("ITL ms", "itl_p50_s", 1e3, 1),
    ("p90", "itl_p90_s", 1e3, 1),
)


def to_json(plan: Plan, machine: Json, found: Found, qualities: Mapping[str, Quality]) -> Json:
    return {
        "machine": machine,
        "plan": asdict(plan),
        "samples": [asdict(s) | {"tokens_per_s": s.tokens_per_s} for s in found.samples],
        "steps": [asdict(step) for step in found.steps],
        "footprint": asdict(found.footprint) if found.footprint else None,
        "builds": [asdict(build) for build in found.builds],
        "engines": [{fact: manifest[fact] for fact in _FACTS} for manifest in found.manifests.values()],
        "quality": {name: asdict(one) | {"comparable": one.comparable} for name, one in qualities.items()},
        "missing": found.missing,
        "idle_cores": found.idle_cores,
        "prefix_cache_hits": found.hits,
        "roofline": _roofline(found),
        "verdicts": [asdict(one) | {"met": one.met} for one in verdicts(plan, found, qualities)],
    }


def show(plan: Plan, machine: Json, found: Found, qualities: Mapping[str, Quality]) -> None:
    console = Console()
    if not console.is_terminal:  # a file has no width of its own
        console = Console(width=_WIDTH)
    for model in plan.models:
        for setting in Setting:
            if any(row.setting is setting for row in plan.loaded(model)):
                scored = qualities if plan.scores(model) else {}
                console.print(_table(plan, model, setting, found, scored))
    for line in _remarks(plan, found):
        console.print(line)
    console.print(_targets(verdicts(plan, found, qualities), quick=plan.quick))
    console.print(where(machine))


def where(machine: Json) -> str:
    """The machine, the level of its kernels, the day and the commit, in one line."""
    changed = " with changes" if machine["uncommitted_changes"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, kernels {machine['kernels'] or 'none'}, "
        f"{machine['date']}, commit {machine['commit']}{changed}"
    )


def _table(
    plan: Plan, model: Model, setting: Setting, found: Found, qualities: Mapping[str, Quality]
) -> Table:
    parameters = found.manifests[model.name]["model"]["parameters"]
    tokens = f"{model.tokens_in} tokens in, {plan.tokens_out} out"
    title = f"{model.name} ({parameters / 1e6:.0f}M), {setting}: {tokens}; medians of {plan.repeats}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    # With scores there is no room for the percentiles.
    columns = [column for column in _COLUMNS if not qualities or column[0] != "p90"]
    scores = ("perpl.", "loss %") if qualities else ()
    for title in ("at once", "tok/s", "range", *(column[0] for column in columns), *scores):
        table.add_column(title, justify="right", no_wrap=True)
    for row in plan.loaded(model):
        if row.setting is setting:
            for cells in _lines(model, row, found, qualities, columns):
                table.add_row(*cells)
    return table


def _lines(
    model: Model, row: Row, found: Found, qualities: Mapping[str, Quality], columns: Sequence[Column]
) -> Iterator[Sequence[str]]:
    if row.name in found.missing:
        yield (row.title, "", "[yellow]missing")
        return
    title, one = row.title, qualities.get(row.weights)
    scores = []
    if one is not None:
        error = "" if one.error is None else f" ±{100 * one.error:.2f}"
        red = "" if one.comparable else "[red]"
        scores = [f"{one.perplexity:.2f}", f"{red}{100 * one.loss:+.2f}{error}"]
    for load in model.loads:
        got = samples_of(found.samples, model.name, row.name, load)
        if got:
            yield (title, f"{load}", *_figures(got, columns), *scores)
            title, scores = "", []


def _figures(got: Sequence[Sample], columns: Sequence[Column]) -> Iterator[str]:
    every = [sample.tokens_per_s for sample in got]
    yield f"{median(every):.0f}"
    yield f"{min(every):.0f}–{max(every):.0f}"
    for _, name, scale, decimals in columns:
        known = [value for sample in got if (value := getattr(sample, name)) is not None]
        yield f"{scale * median(known):.{decimals}f}" if known else "-"


def _remarks(plan: Plan, found: Found) -> Iterator[str]:
    rows = {row.name: row for model in plan.models for row in plan.loaded(model)}
    for row in rows.values():
        if row.note:
            yield f"[dim]{row.title}: {row.note}"
    if found.losses:
        yield "[dim]loss in red: more than 1 % of perplexity, not comparable"
    for name, reason in found.missing.items():
        yield f"[yellow]{name} is missing: {reason}"
    if found.idle_cores > IDLE_CORES:
        yield f"[red]what was loaded but not measured took {found.idle_cores:.2f} of a core"
    if found.hits:
        yield f"[red]{found.hits:.0f} prompt tokens came from the prefix cache: the figures are too good"
    if roof := _roofline(found):
        weights = f"int8 weights ({roof['weights_bytes'] / 1e6:.0f} MB)"
        cap = f"{roof['bandwidth'] / 1e9:.0f} GB/s read: {weights} cap one sequence"
        line = f"roofline: {cap} at {roof['tokens_per_s']:.0f} tokens/s"
        ours = samples_of(found.samples, MODEL, "engine", Load(1))
        decode = [sample.decode_tokens_per_s for sample in ours if sample.decode_tokens_per_s]
        share = f"; Halimede decodes at {median(decode) / roof['tokens_per_s']:.0%} of it" if decode else ""
        yield line + share


def _roofline(found: Found) -> dict[str, float] | None:
    """Decoding one sequence reads every weight once a token, so the bandwidth caps its rate."""
    if found.bandwidth is None:
        return None
    weights, read = found.manifests[MODEL]["model"]["parameters"], found.bandwidth
    return {"bandwidth": read, "weights_bytes": weights, "tokens_per_s": read / weights}


def _targets(found: Sequence[Verdict], *, quick: bool) -> Table:
    title = "targets" + (", of a quick run: the figures mean nothing" if quick else "")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for column in ("", "value", "min to max", "target", ""):
        table.add_column(column)
    for verdict in found:
        table.add_row(
            verdict.name + (f"\n[dim]  {verdict.note}" if verdict.note else ""),
            _number(verdict.value),
            "" if verdict.low is None else f"{_number(verdict.low)} to {_number(verdict.high)}",
            f"{_SIGNS[verdict.relation]} {verdict.target:g}",
            _WORDS[verdict.met],
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value >= 10 else f"{value:.3f}"
