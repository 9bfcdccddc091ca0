"""Fills every slot of a server once, so that what grows afterwards is no cache that somebody reached for the
first time: its pages are reserved at the start, but become resident when they are first written.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from loadtest import artifacts
from loadtest.errors import BenchError
from loadtest.prompts import Prompts
from loadtest.streams import Streams


def fill(url: str, repository: Path, model: str) -> str:
    """What was filled, or why it was not: a model that reads no prompts of this kind serves on as it is."""
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
