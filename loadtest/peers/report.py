"""What a comparison found, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from loadtest.bench.report import targets_table, where, wide_console
from loadtest.peers.idle import IDLE_CORES
from loadtest.peers.measure import Found
from loadtest.peers.plan import Plan, Row, Setting
from loadtest.peers.quality import Quality
from loadtest.peers.roofline import Roofline
from loadtest.peers.verdicts import verdicts
from loadtest.sample import Sample

Json = dict[str, Any]


def to_json(
    plan: Plan, machine: Json, found: Found, qualities: Mapping[str, Quality], roof: Roofline
) -> Json:
    return {
        "machine": machine,
        "plan": asdict(plan),
        "rows": [asdict(row) for row in plan.rows],
        "samples": [asdict(s) | {"tokens_per_s": s.tokens_per_s} for s in found.samples],
        "quality": {model: asdict(one) | {"comparable": one.comparable} for model, one in qualities.items()},
        "missing": found.missing,
        "idle_cores": found.idle_cores,
        "roofline": asdict(roof) | {"tokens_per_s": roof.tokens_per_s},
        "verdicts": [
            asdict(verdict) | {"met": verdict.met} for verdict in verdicts(plan, found.samples, qualities)
        ],
    }


def show(plan: Plan, machine: Json, found: Found, qualities: Mapping[str, Quality], roof: Roofline) -> None:
    console = wide_console()
    for setting in Setting:
        console.print(_table(plan, setting, found, qualities))
    for line in _notes(plan, found):
        console.print(line)
    console.print(roofline_line(roof, found.samples))
    console.print(targets_table(verdicts(plan, found.samples, qualities), quick=plan.quick))
    console.print(where(machine))


def roofline_line(roof: Roofline, samples: Sequence[Sample]) -> str:
    read = f"{roof.bandwidth / 1e9:.0f} GB/s read: int8 weights ({roof.weights_bytes / 1e6:.0f} MB) cap one"
    cap = f"roofline: {read} sequence at {roof.tokens_per_s:.0f} tokens/s"
    ours = [s.decode_tokens_per_s for s in samples if (s.row, s.streams) == ("engine", 1)]
    decode = [rate for rate in ours if rate]
    return f"{cap}; Halimede decodes at {median(decode) / roof.tokens_per_s:.0%} of it" if decode else cap


def _table(plan: Plan, setting: Setting, found: Found, qualities: Mapping[str, Quality]) -> Table:
    sizes = f"{plan.tokens_in} tokens in, {plan.tokens_out} out, greedy"
    title = f"{setting}: {sizes}; medians of {plan.repeats}" + ("; quick" if plan.quick else "")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("seq.", "tok/s", "spread", "decode/s", "TTFT ms", "prefill/s", "perpl.", "loss %"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in plan.rows:
        if row.setting is setting:
            for cells in _lines(plan, row, found, qualities):
                table.add_row(*cells)
    return table


def _lines(plan: Plan, row: Row, found: Found, qualities: Mapping[str, Quality]) -> Iterator[Sequence[str]]:
    if row.name in found.missing:
        yield (row.title, "", "[yellow]missing", *[""] * 6)
        return
    title, scores = row.title, _quality(qualities.get(row.model))
    for streams in plan.streams:
        got = [s for s in found.samples if (s.row, s.streams) == (row.name, streams)]
        if got:
            yield (title, f"{streams}", *_figures(got, plan.tokens_in), *scores)
            title, scores = "", ("", "")


def _figures(got: Sequence[Sample], tokens_in: int) -> Iterator[str]:
    every = [sample.tokens_per_s for sample in got]
    decode = [s.decode_tokens_per_s for s in got if s.decode_tokens_per_s is not None]
    yield f"{median(every):.0f}"
    yield f"{min(every):.0f}–{max(every):.0f}"
    yield f"{median(decode):.0f}" if decode else "-"
    yield f"{1e3 * median(sample.ttft_p50_s for sample in got):.0f}"
    yield f"{median(prefill_rate(sample, tokens_in) for sample in got):.0f}"


def prefill_rate(sample: Sample, tokens_in: int) -> float:
    """Prompt tokens a second until the last sequence has its first token; decode steps in between count
    against it.
    """
    return sample.streams * tokens_in / max(sample.ttft_s)


def _quality(one: Quality | None) -> tuple[str, str]:
    if one is None:
        return "-", "-"
    error = "" if one.error is None else f" ±{100 * one.error:.2f}"
    return f"{one.perplexity:.2f}", f"{'' if one.comparable else '[red]'}{100 * one.loss:+.2f}{error}"


def _notes(plan: Plan, found: Found) -> Iterator[str]:
    for row in plan.rows:
        if row.note:
            yield f"[dim]{row.title}: {row.note}"
    yield "[dim]loss in red: more than 1 % of perplexity, not comparable"
    for name, reason in found.missing.items():
        yield f"[yellow]{name} is missing: {reason}"
    if found.idle_cores > IDLE_CORES:
        yield f"[red]what was loaded but not measured took {found.idle_cores:.2f} of a core"
