"""The memory of a server while others put load on it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from loadtest.memory import memory_of_tree


@dataclass(frozen=True, slots=True)
class Look:
    """Seconds since the watch began; bytes of all processes of the server together."""

    at_s: float
    rss: int
    pss: int
    processes: int


class Watch:
    """Looks at the tree of `root` every `interval_s` while its `with` block runs.

    It ends by itself when the tree is gone: `ended` says so, and the looks until then are kept.
    """

    def __init__(self, root: int, interval_s: float) -> None:
        self._root = root
        self._interval_s = interval_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = 0.0
        self._looks: list[Look] = []
        self.ended = False

    @property
    def looks(self) -> tuple[Look, ...]:
        return tuple(self._looks)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._look() and not self._done.wait(self._interval_s):
            pass

    def _look(self) -> bool:
        found, at_s = memory_of_tree(self._root), time.monotonic() - self._began
        self.ended = found.processes == 0
        if not self.ended:
            self._looks.append(Look(at_s, found.rss, found.pss, found.processes))
        return not self.ended
