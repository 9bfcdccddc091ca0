"""What a run leaves for people: report.html, and the figures on it as PNG files beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadtest.measure.record import Record
from loadtest.measure.result import Result
from loadtest.measure.sweep import Sweep
from loadtest.pages.screen import WIDTH, show, show_sweep


def write(result: Result, records: Sequence[Record], folder: Path) -> list[Path]:
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    show(result, console)
    console.print(f"{len(records)} records")
    return [_page(folder, console)]


def write_sweep(sweep: Sweep, folder: Path) -> list[Path]:
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    show_sweep(sweep, console)
    return [_page(folder, console)]


def _page(folder: Path, console: Console) -> Path:
    page = folder / "report.html"
    page.write_text(console.export_html(inline_styles=True), encoding="utf-8")
    return page
