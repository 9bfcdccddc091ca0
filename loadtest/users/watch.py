"""The server of a soak test: its slots are filled before the load, its memory is read during the load."""

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
    """The readings of a server's memory so far; `ended` is true when its processes are gone."""

    looks: list[Look] = field(default_factory=list)
    ended: bool = False


@contextmanager
def watching(root: int, interval_s: float, on_end: Callable[[], None] = lambda: None) -> Iterator[Watch]:
    """Reads the memory of the tree of `root` every `interval_s` while the `with` block runs. Calls `on_end`
    once, when the tree has ended."""
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
    """Fills every slot once, so that memory which grows afterwards is not the cache: its pages are reserved
    at the start, but become resident when they are first written.

    Returns what was filled, or why nothing was: a model that takes no such prompts is left as it is.
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
