"""Both sides under every load: interleaved, so that a change of the machine hits both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from loadtest.models.plan import Case, Load, Plan
from loadtest.models.sides import Side
from loadtest.prompts import Prompt, Prompts

_WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """`first_token_s` is the median over the requests; None with beams, whose tokens come at the end."""

    model: str
    side: str
    load: Load
    repeat: int
    tokens: int
    wall_s: float
    first_token_s: float | None

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over the time from the requests to the last token: prompts included."""
        return self.tokens / self.wall_s


class Versus:
    def __init__(
        self,
        plan: Plan,
        case: Case,
        sides: Mapping[str, Side],
        prompts: Prompts,
        advance: Callable[[str], None],
    ) -> None:
        """`advance` is told what comes next, once before each measurement."""
        self._plan = plan
        self._case = case
        self._sides = sides
        self._prompts = prompts
        self._advance = advance

    def run(self) -> list[Sample]:
        """Every load once to touch memory and open connections, then the repeats."""
        for load, name, side in self._schedule():
            self._advance(f"warming up {name}, {load}")
            side.run(self._fresh(load), _WARM_UP_TOKENS, load.beams)
        return [
            self._sample(repeat, load, name, side)
            for repeat in range(self._plan.repeats)
            for load, name, side in self._schedule()
        ]

    def _schedule(self) -> Iterator[tuple[Load, str, Side]]:
        for load in self._case.loads:
            for name, side in self._sides.items():
                yield load, name, side

    def _sample(self, repeat: int, load: Load, name: str, side: Side) -> Sample:
        self._advance(f"{name}, {load}")
        streams = side.run(self._fresh(load), self._plan.tokens_out, load.beams)
        return Sample(
            model=self._case.shape.name,
            side=name,
            load=load,
            repeat=repeat,
            tokens=sum(tokens for stream in streams for _, tokens in stream),
            wall_s=max(stream[-1][0] for stream in streams),
            first_token_s=median(stream[0][0] for stream in streams) if load.beams == 1 else None,
        )

    def _fresh(self, load: Load) -> list[Prompt]:
        return self._prompts.take(load.requests, self._case.tokens_in)
