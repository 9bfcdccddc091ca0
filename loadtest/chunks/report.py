"""What a run found, as a table, in words and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from loadtest.bench.report import where, wide_console
from loadtest.chunks.arrival import Sample
from loadtest.chunks.judged import Point, points, recommended
from loadtest.chunks.plan import SIDES, Plan

Json = dict[str, Any]
_COLUMNS = (
    "chunk",
    "ITL p50",
    "p99",
    "x alone",
    "least to most",
    "TTFT",
    "x alone",
    "least to most",
    "alone",
)


def to_json(plan: Plan, machine: Json, samples: Sequence[Sample]) -> Json:
    found = points(plan, samples)
    return {
        "machine": machine,
        "plan": asdict(plan),
        "samples": [asdict(sample) for sample in samples],
        "points": [
            asdict(point) | {"ttft_own_ratio": point.ttft_own_ratio, "meets_both": point.meets(plan)}
            for point in found
        ],
        "recommended": {side: _name(plan, found, side) for side in plan.sides},
    }


def show(plan: Plan, machine: Json, samples: Sequence[Sample]) -> None:
    console, found = wide_console(), points(plan, samples)
    for side in plan.sides:
        theirs = [point for point in found if point.side == side]
        console.print(_table(plan, side, theirs))
        console.print(verdict(plan, theirs))
        console.print()
    if plan.quick:
        console.print("[yellow]a quick run: the figures mean nothing")
    console.print(where(machine))


def verdict(plan: Plan, found: Sequence[Point]) -> str:
    """Of one side's points: which meet both aims, and which one to take."""
    aims = f"ITL p99 ≤ {plan.itl_aim:g} x and TTFT ≤ {plan.ttft_aim:g} x of alone"
    best = recommended(plan, found)
    if best is None:
        near = min(found, key=lambda point: point.worst(plan))
        return f"none meets both {aims}; {near.variant} comes nearest"
    names = ", ".join(point.variant for point in found if point.meets(plan))
    return f"both {aims}: {names}; {best.variant} is the farthest from either limit"


def _name(plan: Plan, found: Sequence[Point], side: str) -> str | None:
    best = recommended(plan, [point for point in found if point.side == side])
    return best.variant if best else None


def _table(plan: Plan, side: str, found: Sequence[Point]) -> Table:
    title = (
        f"{SIDES[side]}: a prompt of {plan.prompt_tokens} tokens among {plan.streams} streams;"
        f" medians of {plan.repeats}, times in ms"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for index, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=not index)
    table.add_column("")
    for point in found:
        table.add_row(*_cells(point), "[green]both" if point.meets(plan) else "")
    return table


def _cells(point: Point) -> tuple[str, ...]:
    return (
        point.variant,
        f"{1e3 * point.itl_p50_s:.0f}",
        f"{1e3 * point.itl_p99_s:.0f}",
        f"{point.itl_ratio:.2f}",
        f"{point.itl_low:.2f} to {point.itl_high:.2f}",
        f"{1e3 * point.ttft_s:.0f}",
        f"{point.ttft_ratio:.2f}",
        f"{point.ttft_low:.2f} to {point.ttft_high:.2f}",
        f"{1e3 * point.ttft_alone_s:.0f}",
    )
