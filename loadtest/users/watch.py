"""The server of a soak test: its slots filled beforehand, and its memory while others put load on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loadtest import artifacts
from loadtest.errors import BenchError
from loadtest.measure.soak import Look
from loadtest.memory import memory_of_tree
from loadtest.prompts import Prompts
from loadtest.streams import Streams
from loadtest.users.live import repeatedly


@dataclass(slots=True)
class Watch:
    """The looks at a server's processes so far; `ended` is true where they are gone, and looks end there."""

    looks: list[Look] = field(default_factory=list)
    ended: bool = False


@contextmanager
def watching(root: int, interval_s: float, on_end: Callable[[], None] = lambda: None) -> Iterator[Watch]:
    """Looks at the tree of `root` every `interval_s` while its `with` block runs. Where the tree ends it says
    so once, by `on_end`."""
    watch, began = Watch(), time.monotonic()

    def look() -> bool:
        found, at_s = memory_of_tree(root), time.monotonic() - began
        watch.ended = found.processes == 0
        if watch.ended:
            on_end()
        else:
            watch.looks.append(Look(at_s, found.rss, found.pss, found.processes))
        return not watch.ended

    with repeatedly(look, interval_s):
        yield watch


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
