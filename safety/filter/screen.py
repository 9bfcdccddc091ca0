"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from safety.filter.pipeline import Progress

Show = Callable[[Progress], None]
_LINE_S = 10.0


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """What a run calls with how far it is."""
    if console.is_terminal:
        with _bar(console) as show:
            yield show
    else:
        yield _lines(console)


@contextmanager
def _bar(console: Console) -> Iterator[Show]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=None)

        def show(at: Progress) -> None:
            words = f"{at.kept} of {at.documents} documents kept"
            bar.update(task, completed=at.done, total=at.total, description=words)

        yield show


def _lines(console: Console) -> Show:
    began: list[float] = []
    first: list[int] = []
    last = [0.0]

    def show(at: Progress) -> None:
        now = time.monotonic()
        if not began:
            began.append(now)
            first.append(at.done)
        if now - last[0] >= _LINE_S:
            last[0] = now
            rate = (at.done - first[0]) / max(now - began[0], 1e-9)
            left = f", {(at.total - at.done) / rate:.0f} s left" if rate else ""
            share = f"{100 * at.done / max(at.total, 1):.0f} %"
            console.print(f"{share}: {at.kept} of {at.documents} documents kept, {rate / 1e6:.1f} MB/s{left}")

    return show
