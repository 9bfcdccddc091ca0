"""The server of a soak test: its slots filled beforehand, and its memory while others put load on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtest import artifacts
from loadtest.errors import BenchError
from loadtest.measure.soak import Look
from loadtest.memory import memory_of_tree
from loadtest.prompts import Prompts
from loadtest.streams import Streams


class Watch:
    """Looks at the tree of `root` every `interval_s` while its `with` block runs.

    It ends by itself when the tree is gone: it says so once by `on_end`, and keeps the looks until then.
    """

    def __init__(self, root: int, interval_s: float, on_end: Callable[[], None] = lambda: None) -> None:
        self._root = root
        self._interval_s = interval_s
        self._on_end = on_end
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
        while True:
            found, at_s = memory_of_tree(self._root), time.monotonic() - self._began
            if found.processes == 0:
                self.ended = True
                self._on_end()
                return
            self._looks.append(Look(at_s, found.rss, found.pss, found.processes))
            if self._done.wait(self._interval_s):
                return


def fill(url: str, repository: Path, model: str) -> str:
    """Fills every slot once, so that what grows afterwards is no cache that somebody reached for the first
    time: its pages are reserved at the start, but become resident when they are first written.

    Says what was filled, or why it was not: a model that reads no prompts of this kind serves on as it is.
    """
    try:
        slots, context = sizes(artifacts.parameters_of(repository, model))
        answer = context // 4
        prompts = Prompts.load(artifacts.engine_of(repository, model)).take(slots, context - answer)
        with closing(Streams(url, model)) as streams:
            streams.run(prompts, answer)
    except BenchError as error:
        return f"the slots are not filled beforehand, memory may grow until they are: {error}"
    return f"filled {slots} slots with {context} tokens each, so that what grows from now on is no cache"


def sizes(parameters: dict[str, str]) -> tuple[int, int]:
    """Slots, and the positions of each; BenchError for a config.pbtxt that does not say."""
    try:
        return int(parameters["slots"]), int(parameters["max_context"])
    except (KeyError, ValueError) as error:
        raise BenchError(f"the engine's config.pbtxt has no slots or max_context ({error!r})") from error
