"""Runs long jobs on a separate thread, one at a time, so that short ones do not wait for them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from itertools import count
from queue import PriorityQueue


class ShortestFirst:
    """Runs the smallest of the waiting jobs; an exception in one is reported and affects no other."""

    def __init__(self, name: str, report: Callable[[BaseException], None]) -> None:
        self._waiting: PriorityQueue[tuple[float, int, Callable[[], None] | None]] = PriorityQueue()
        self._number = count()  # jobs of one size in their order
        self._report = report
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, size: int, job: Callable[[], None]) -> None:
        self._waiting.put((size, next(self._number), job))

    def close(self) -> None:
        """Returns when the jobs that wait are done."""
        self._waiting.put((math.inf, next(self._number), None))
        self._thread.join()

    def _run(self) -> None:
        while job := self._waiting.get()[2]:
            try:
                job()
            except Exception as error:  # noqa: BLE001  whatever it is, the next job runs
                self._report(error)
