"""What is going on, on stderr. It is drawn between measurements only: drawing takes time from them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Bars:
    def __init__(self, progress: Progress, *, is_terminal: bool) -> None:
        self._progress = progress
        self._is_terminal = is_terminal

    def say(self, what: str) -> None:
        if not self._is_terminal:
            print(what, file=sys.stderr, flush=True)

    def stage(self, name: str, steps: int) -> Callable[[str], None]:
        """Begins a stage of so many steps; call the result before each, with what it is."""
        self.say(f"{name}: {steps} steps")
        task = self._progress.add_task(name, total=steps)
        started = False

        def advance(what: str) -> None:
            nonlocal started
            self._progress.update(task, description=f"{name}: {what}", advance=int(started))
            started = True
            if self._is_terminal:
                self._progress.refresh()

        return advance


@contextmanager
def bars() -> Iterator[Bars]:
    is_terminal = sys.stderr.isatty()
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, auto_refresh=False, transient=True, disable=not is_terminal
    ) as progress:
        yield Bars(progress, is_terminal=is_terminal)
