"""Estimates beside what a benchmark measured, as ratios: is the formula still true?"""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from build.recommend.amount import gib
from build.recommend.device import Device, Kind
from build.recommend.footprint import footprint, serving
from build.recommend.measured import Bench
from build.recommend.report import WIDTH
from build.recommend.roofline import Load, decode
from build.shape import Shape


def show(bench: Bench, shape: Shape, device: Device) -> None:
    title = (
        f"{bench.name} {bench.precision.value} on {bench.machine}, {bench.date}; estimates for {device.title}"
    )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), title=title, title_justify="left")
    table.add_column("")
    for column in ("estimate", "measured", "ratio"):
        table.add_column(column, justify="right")
    for name, estimate, measured, unit in _pairs(bench, shape, device):
        shown = [gib(value) if unit == "bytes" else f"{value:.0f}" for value in (estimate, measured)]
        table.add_row(name, *shown, f"{estimate / measured:.2f}")
    Console(width=WIDTH).print(table)


def _pairs(bench: Bench, shape: Shape, device: Device) -> Iterator[tuple[str, float, float, str]]:
    load = Load(bench.tokens_in, bench.tokens_out)
    for streams, rate in bench.decode.items():
        seconds = decode(shape, bench.precision, device, streams, load).seconds
        yield f"tokens/s while {streams} streams decode", streams / seconds, rate, ""
    if bench.memory:
        served = serving(shape, bench.slots, bench.context)
        estimate = footprint(shape, bench.precision, Kind.CPU, served).total
        yield f"memory of the server, {bench.slots} slots full", estimate, bench.memory, "bytes"
