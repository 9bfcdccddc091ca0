"""The measurement: every row at every number of sequences, interleaved over the repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from loadtest.bench.throughput import InProcess
from loadtest.bench.throughput import Row as Measurable
from loadtest.errors import BenchError
from loadtest.peers.completions import Completions
from loadtest.peers.idle import settle
from loadtest.peers.plan import OURS, Plan, order
from loadtest.peers.rows import Batched, Losses, Rows
from loadtest.prompts import Prompt, Prompts
from loadtest.sample import Sample, Stream, sample_of

_WARM_UP_TOKENS = 4
_SCORED = (InProcess, Batched, Completions)


@dataclass(slots=True)
class Found:
    """`missing` says of a row why it was not measured; `idle_cores` is the most that all
    loaded rows took just before a measurement.
    """

    samples: list[Sample] = field(default_factory=list)
    losses: dict[str, Losses] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    idle_cores: float = 0.0


class Measurement:
    def __init__(
        self,
        plan: Plan,
        rows: Rows,
        prompts: Prompts,
        windows: Sequence[Prompt],
        advance: Callable[[str], None],
    ) -> None:
        """`advance` is told what comes next, once before each of `plan.steps` steps."""
        self._plan = plan
        self._rows = rows
        self._prompts = prompts
        self._windows = windows
        self._advance = advance
        self._found = Found()

    def run(self, missing: Mapping[str, str]) -> Found:
        """Rows of peers that are `missing` are left out; one that fails is missed from then on."""
        found = self._found
        found.missing |= {row.name: missing[row.peer] for row in self._plan.rows if row.peer in missing}
        with ExitStack() as stack:
            opened = dict(self._opened(stack))
            self._score(opened)
            self._warm_up(opened)
            for repeat in range(self._plan.repeats):
                for streams in self._plan.streams:
                    for name in order(tuple(opened), repeat):
                        self._measure(name, opened[name], streams, repeat)
        return found

    def _opened(self, stack: ExitStack) -> Iterator[tuple[str, Measurable]]:
        for row in self._plan.rows:
            if row.name in self._found.missing:
                continue
            self._advance(f"starting {row.title}")
            try:
                yield row.name, stack.enter_context(self._rows.open(row.name))
            except BenchError as error:
                self._miss(row.name, error)

    def _score(self, opened: Mapping[str, Measurable]) -> None:
        """Each model once."""
        for row in self._plan.rows:
            one = opened.get(row.name)
            if row.model in self._found.losses or not isinstance(one, _SCORED):
                continue
            self._advance(f"scoring {row.title}")
            try:
                self._found.losses[row.model] = one.score(self._windows)
            except BenchError as error:
                self._miss(row.name, error)

    def _warm_up(self, opened: Mapping[str, Measurable]) -> None:
        """Every row at every width once: memory is touched, connections are open, graphs compiled."""
        for name, row in opened.items():
            for streams in self._plan.streams:
                self._advance(f"warming up {name}, {streams}")
                self._ran(name, row, streams, _WARM_UP_TOKENS)

    def _measure(self, name: str, row: Measurable, streams: int, repeat: int) -> None:
        self._advance(f"{name}, {streams}, repeat {repeat + 1}")
        self._found.idle_cores = max(self._found.idle_cores, settle())
        got = self._ran(name, row, streams, self._plan.tokens_out)
        if got is not None:
            self._found.samples.append(sample_of(name, repeat, got))

    def _ran(self, name: str, row: Measurable, streams: int, tokens: int) -> Sequence[Stream] | None:
        if name in self._found.missing:
            return None
        try:
            return row.run(self._prompts.take(streams, self._plan.tokens_in), tokens)
        except BenchError as error:
            self._miss(name, error)
            return None

    def _miss(self, name: str, error: BenchError) -> None:
        """Our own row must work: without it there is nothing to compare."""
        if next(row.peer for row in self._plan.rows if row.name == name) == OURS:
            raise error
        self._found.missing[name] = str(error)
