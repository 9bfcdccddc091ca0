"""The ranking as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from build.quantise import Precision
from build.recommend.amount import gib
from build.recommend.measured import Bench, Built
from build.recommend.rank import Need, Verdict
from build.recommend.roofline import decode

Json = dict[str, Any]
WIDTH = 100
FORMULA = (
    "memory = weights + slots * positions * bytes of a position + working memory + the server's own",
    "step(n) = bytes of weights / bandwidth + 2 * n * weights / compute",
    "        + n * bytes of the positions held / bandwidth + layers * start",
    "tokens/s of n streams = n / step(n)",
)
_TUNE = "pretrained for no task: fine-tune it, and build that"


def to_json(found: Sequence[Verdict], need: Need, engines: Sequence[Built], benches: Sequence[Bench]) -> Json:
    device = need.device
    return {
        "device": {
            "name": device.name,
            "title": device.title,
            "source": device.source,
            "bandwidth_bytes_per_s": device.bandwidth,
            "compute_per_s": {precision.value: rate for precision, rate in device.compute.items()},
            "layer_s": device.layer_s,
        },
        "memory_bytes": need.memory,
        "tokens_in": need.load.tokens_in,
        "tokens_out": need.load.tokens_out,
        "formula": list(FORMULA),
        "models": [_verdict(verdict, engines, benches) for verdict in found],
    }


def _verdict(verdict: Verdict, engines: Sequence[Built], benches: Sequence[Bench]) -> Json:
    recipe = verdict.recipe
    return {
        "name": recipe.name,
        "task": recipe.task.value if recipe.task else None,
        "licence": recipe.licence,
        "needs_tuning": recipe.needs_tuning,
        "parameters": verdict.shape.parameters,
        "precision": verdict.precision.value,
        "fits": verdict.fits,
        "reasons": list(verdict.reasons),
        "disk_bytes": verdict.disk,
        "serving": asdict(verdict.served),
        "memory_bytes": asdict(verdict.footprint) | {"total": verdict.footprint.total},
        "tokens_per_s": {"one": verdict.speed.one, "full": verdict.speed.full},
        "step_s": verdict.speed.step_s,
        "first_token_s": verdict.speed.first_token_s,
        "perplexity_ratio": asdict(verdict.quality),
        "measured": _measured(verdict, engines, benches),
    }


def _measured(verdict: Verdict, engines: Sequence[Built], benches: Sequence[Bench]) -> Json:
    key = (verdict.recipe.name, verdict.precision)
    found: Json = {}
    for engine in engines:
        if (engine.name, engine.precision) == key:
            found |= {"disk_bytes": engine.disk_bytes, "perplexity_ratio": engine.ratio}
    runs = [_run(bench, key) for bench in benches]
    return found | {"benches": [run for run in runs if run["tokens_per_s"]]}


def _run(bench: Bench, key: tuple[str, Precision]) -> Json:
    memory = bench.memory and (bench.memory.name, bench.memory.precision) == key
    return {
        "machine": bench.machine,
        "date": bench.date,
        "tokens_per_s": [
            {
                "through": rate.through,
                "requests": rate.requests,
                "beams": rate.beams,
                "tokens_in": rate.load.tokens_in,
                "tokens_out": rate.load.tokens_out,
                "whole": rate.whole,
                "decode": rate.decode,
            }
            for rate in bench.rates
            if (rate.name, rate.precision) == key
        ],
        "memory_bytes": bench.memory.size if bench.memory and memory else None,
    }


def show(
    found: Sequence[Verdict],
    need: Need,
    engines: Sequence[Built],
    benches: Sequence[Bench],
    unknown: Sequence[str],
    explained: bool,
) -> None:
    console = Console(width=WIDTH, highlight=False)
    console.print(f"{need.device.title} ({need.device.source}), {gib(need.memory)}", markup=False)
    fitting = [verdict for verdict in found if verdict.fits]
    if fitting:
        console.print(_table(fitting, need))
    for verdict in found:
        for line in _lines(verdict, engines, benches):
            console.print(f"{verdict.recipe.name}: {line}", markup=False)
    for name in unknown:
        console.print(f"{name}: its recipe has no [shape], so that nothing is known before it is built")
    if explained:
        _explain(console, found, need)


def _table(found: Sequence[Verdict], need: Need) -> Table:
    load = need.load
    about = f"estimates for {need.slots} slots, {load.tokens_in} tokens in and {load.tokens_out} out"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, caption=about)
    table.caption_justify = "left"
    table.add_column("model", no_wrap=True)
    table.add_column("")
    columns = ("disk", "memory", "tok/s,\n1", f"tok/s,\n{need.slots}", "ms each", "first", "loss")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("licence")
    for verdict in found:
        table.add_row(*_cells(verdict))
    return table


def _cells(verdict: Verdict) -> tuple[str, ...]:
    speed = verdict.speed
    return (
        verdict.recipe.name,
        verdict.precision.value,
        gib(verdict.disk),
        gib(verdict.footprint.total),
        f"{speed.one:.0f}",
        f"{speed.full:.0f}",
        f"{1e3 * speed.step_s:.1f}",
        _seconds(speed.first_token_s),
        f"{'' if verdict.quality.measured else '~'}{100 * (verdict.quality.ratio - 1):.1f}%",
        (verdict.recipe.licence or "unknown") + (" (terms)" if verdict.recipe.terms else ""),
    )


def _seconds(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.1f} ms"


def _lines(verdict: Verdict, engines: Sequence[Built], benches: Sequence[Bench]) -> list[str]:
    lines = []
    if verdict.reasons:
        lines.append(f"{verdict.precision.value} does not fit: {'; '.join(verdict.reasons)}")
    elif verdict.recipe.needs_tuning:
        lines.append(_TUNE)
    measured = _measured(verdict, engines, benches)
    if "disk_bytes" in measured:
        ratio = 100 * (measured["perplexity_ratio"] - 1)
        lines.append(f"built here: {gib(measured['disk_bytes'])} on disk, {ratio:+.1f}% perplexity")
    return lines + [_benched(run) for run in measured["benches"]]


def _benched(run: Json) -> str:
    rates = [rate for rate in run["tokens_per_s"] if rate["beams"] == 1]
    through = rates[0]["through"]
    shown = ", ".join(f"{r['whole']:.0f} with {r['requests']}" for r in rates if r["through"] == through)
    memory = f"; {gib(run['memory_bytes'])} with all slots full" if run["memory_bytes"] else ""
    load = f"{rates[0]['tokens_in']} tokens in, {rates[0]['tokens_out']} out"
    return f"measured {through}, {load}: tokens/s {shown}{memory}; {run['machine']}, {run['date']}"


def _explain(console: Console, found: Sequence[Verdict], need: Need) -> None:
    device = need.device
    console.print("\n" + "\n".join(FORMULA), markup=False)
    for verdict in found[:1]:
        compute = device.compute[verdict.precision] / 1e9
        console.print(
            f"bandwidth {device.bandwidth / 1e9:.0f} GB/s, compute {compute:,.0f} G/s in"
            f" {verdict.precision.value}, start {1e6 * device.layer_s:.0f} us"
        )
        console.print(f"{verdict.recipe.name}: {_parts_of_memory(verdict)}", markup=False)
        for rows in (1, need.slots):
            step = decode(verdict.shape, verdict.precision, device, rows, need.load)
            parts = " + ".join(f"{name} {1e3 * value:.2f}" for name, value in asdict(step).items())
            console.print(f"  step({rows}) = {parts} = {1e3 * step.seconds:.2f} ms", markup=False)


def _parts_of_memory(verdict: Verdict) -> str:
    parts = " + ".join(f"{name} {gib(size)}" for name, size in asdict(verdict.footprint).items())
    return f"memory = {parts} = {gib(verdict.footprint.total)}"
