"""Lines for a container's log: now and then, not a bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

EVERY_S = 5.0


class Progress:
    """Counts bytes from several threads and says at most every few seconds how far it is."""

    def __init__(
        self, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.fetched = 0
        self._total = total
        self._say = say
        self._clock = clock
        self._began = self._said = clock()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.fetched += count
            now = self._clock()
            if now - self._said < EVERY_S:
                return
            self._said = now
            rate = self.fetched / 1e6 / (now - self._began)
            self._say(f"{self.fetched / 1e6:.0f} of {self._total / 1e6:.0f} MB, {rate:.1f} MB/s")
