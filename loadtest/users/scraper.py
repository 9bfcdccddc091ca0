"""Reads the server's metrics every second, in a thread of its own."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import httpx

from loadtest.measure.gauges import Scrape

_EVERY_S = 1.0
_TIMEOUT_S = 2.0


class Scraper:
    """Within its `with` block; without a URL it reads nothing. `failures` are those that brought nothing."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._texts: list[tuple[float, str]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        self.failures = 0
        self.reason = ""

    def scrapes(self, start_epoch_s: float) -> list[Scrape]:
        """By the clock of the run that began then; what came earlier is left out."""
        found = [(at - start_epoch_s, text) for at, text in list(self._texts)]
        return [(at_s, text) for at_s, text in found if at_s >= 0]

    def __enter__(self) -> Self:
        if self._url is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._url is not None:
            self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=_TIMEOUT_S) as http:
            while not self._over.is_set():
                self._read(http)
                self._over.wait(_EVERY_S)

    def _read(self, http: httpx.Client) -> None:
        assert self._url is not None
        try:
            text = http.get(self._url).raise_for_status().text
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.failures += 1
            self.reason = str(error).partition("\n")[0] or type(error).__name__
        else:
            self._texts.append((time.time(), text))
