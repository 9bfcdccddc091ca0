"""Progress for a container's log: a line now and then instead of a bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

EVERY_S = 5.0


class Progress:
    """Counts bytes from several threads and reports them every few seconds at most."""

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        did: str = "fetched",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`total` is in bytes; 0 if it is not known yet."""
        self.fetched = 0
        self._total = total
        self._did = did
        self._say = say
        self._clock = clock
        self._began = self._said = clock()
        self._lock = threading.Lock()

    def expect(self, left: int) -> None:
        """Sets how many bytes are still to come."""
        with self._lock:
            self._total = self.fetched + left

    def add(self, count: int) -> None:
        with self._lock:
            self.fetched += count
            now = self._clock()
            if now - self._said < EVERY_S:
                return
            self._said = now
            rate = self.fetched / 1e6 / (now - self._began)
            of = f" of {self._total / 1e6:.0f}" if self._total else ""
            self._say(f"{self.fetched / 1e6:.0f}{of} MB {self._did}, {rate:.1f} MB/s")
