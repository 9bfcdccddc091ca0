"""Estimates beside what benchmarks measured, as ratios: is the formula still true?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from build.recommend.amount import gib
from build.recommend.device import Device, Kind
from build.recommend.footprint import footprint, serving
from build.recommend.measured import Bench, Memory, Rate
from build.recommend.report import WIDTH
from build.recommend.roofline import decode, whole_run
from build.shape import Shape

Shapes = Callable[[str], Shape]


def show(benches: Sequence[Bench], shapes: Shapes, device: Device) -> None:
    """A table for each benchmark; `shapes` gives the dimensions of a model by its name."""
    console = Console(width=WIDTH, highlight=False)
    console.print(f"estimates for {device.title} ({device.source})", markup=False)
    for bench in benches:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), title_justify="left")
        table.title = f"measured on {bench.machine}, {bench.date}"
        table.add_column("")
        for column in ("estimate", "measured", "ratio"):
            table.add_column(column, justify="right")
        for row in _rows(bench, shapes, device):
            table.add_row(*row)
        console.print(table)


def _rows(bench: Bench, shapes: Shapes, device: Device) -> Iterator[tuple[str, str, str, str]]:
    for rate in bench.rates:
        yield from _rate_rows(rate, shapes(rate.name), device)
    if (memory := bench.memory) is not None:
        name = f"{memory.name} {memory.precision.value}, {memory.slots} slots full: memory"
        estimate = _memory(memory, shapes(memory.name))
        yield name, gib(estimate), gib(memory.size), f"{estimate / memory.size:.2f}"


def _rate_rows(rate: Rate, shape: Shape, device: Device) -> Iterator[tuple[str, str, str, str]]:
    streams = f"{rate.requests} stream{'s' if rate.requests > 1 else ''}"
    beams = f" of {rate.beams} beams" if rate.beams > 1 else ""
    name = f"{rate.name} {rate.precision.value}, {streams}{beams}, {rate.through}"
    whole = whole_run(shape, rate.precision, device, rate.requests, rate.load, rate.beams)
    yield _row(f"{name}: tokens/s", whole, rate.whole)
    if rate.decode is not None:
        step = decode(shape, rate.precision, device, rate.requests, rate.load).seconds
        yield _row(f"{name}: while all decode", rate.requests / step, rate.decode)


def _row(name: str, estimate: float, measured: float) -> tuple[str, str, str, str]:
    return name, f"{estimate:.0f}", f"{measured:.0f}", f"{estimate / measured:.2f}"


def _memory(measured: Memory, shape: Shape) -> int:
    served = serving(shape, measured.slots, measured.context)
    return footprint(shape, measured.precision, Kind.CPU, served).total
