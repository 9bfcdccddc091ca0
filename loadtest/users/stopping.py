"""Ctrl-C and SIGTERM as wishes, so that what was measured is not lost: the first ends the load, the second
the rest."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopping:
    """`wishes` counts them."""

    def __init__(self) -> None:
        self.wishes = 0

    def wish(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        self.wishes += 1

    def check(self) -> None:
        """Before there is anything to save."""
        if self.wishes:
            raise KeyboardInterrupt


@contextmanager
def stopping() -> Iterator[Stopping]:
    wishes = Stopping()
    before = {number: signal.signal(number, wishes.wish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
