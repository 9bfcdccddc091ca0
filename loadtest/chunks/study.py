"""All variants of all sides in turn, so that a change of the machine hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from loadtest.chunks.arrival import Arrival, Sample, sample_of
from loadtest.chunks.plan import Plan
from loadtest.chunks.sides import Side
from loadtest.prompts import Prompt, Prompts

# Streams that have just begun when the prompt comes: enough to touch all memory.
_WARM_UP_LEAD: Final = 2

Key = tuple[str, str]


class Study:
    def __init__(
        self, plan: Plan, running: Mapping[Key, Side], prompts: Prompts, advance: Callable[[str], None]
    ) -> None:
        """`running` by side and variant; `advance` is told what comes next, once before each run."""
        self._plan = plan
        self._running = running
        self._prompts = prompts
        self._advance = advance

    def run(self) -> list[Sample]:
        for (side, variant), running in self._running.items():
            self._advance(f"warming up {side}, {variant}")
            self._together(running, _WARM_UP_LEAD)
        return [
            self._sample(repeat, *key) for repeat in range(self._plan.repeats) for key in self._turn(repeat)
        ]

    def _turn(self, repeat: int) -> Iterator[Key]:
        """Forwards, then backwards: nobody always comes after the same one."""
        keys = list(self._running)
        yield from keys if repeat % 2 == 0 else reversed(keys)

    def _sample(self, repeat: int, side: str, variant: str) -> Sample:
        self._advance(f"{side}, {variant}")
        running = self._running[side, variant]
        together = self._together(running, self._plan.lead)
        alone = running.run([], self._long(), 0, self._plan.max_tokens)
        return sample_of(side, variant, repeat, together, alone, self._plan.max_tokens)

    def _together(self, running: Side, lead: int) -> Arrival:
        prompts = self._prompts.take(self._plan.streams, self._plan.tokens_in)
        return running.run(prompts, self._long(), lead, self._plan.max_tokens)

    def _long(self) -> Prompt:
        return self._prompts.take(1, self._plan.prompt_tokens)[0]
