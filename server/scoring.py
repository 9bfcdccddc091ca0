"""Log-likelihoods of windows on a runner: what windows have in common is computed once.

Windows are sorted, so that neighbours begin alike, and shared out to rows. A row scores its windows one after
the other, and keeps the positions that the next one begins with. The logits of a token are the same to the
last bit in whatever company it is computed, so a window's scores do not depend on the other windows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.core.errors import InvalidArgument
from engine.runners.runner import Floats, Run, Runner, Verifier

# Tokens of a call of a Verifier: from here on more are no faster.
_TOKENS: Final = 128
Windows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Job:
    """A window after the one before it on the same row: the tokens from `position` on are computed. Those
    from `first` on are scored; the scores of the tokens before are the earlier window's.
    """

    window: int
    position: int
    first: int


def check(windows: Windows, starts: Sequence[int], vocab: int, capacity: int) -> None:
    """Raises InvalidArgument that names the window."""
    if len(starts) != len(windows):
        raise InvalidArgument("starts", f"{len(starts)}, must be one for each of {len(windows)} windows")
    for place, (tokens, start) in enumerate(zip(windows, starts, strict=True)):
        if len(tokens) > capacity:
            problem = f"{len(tokens)} tokens, must be at most max_context {capacity}"
            raise InvalidArgument(f"windows[{place}]", problem)
        if not 1 <= start <= len(tokens):
            raise InvalidArgument(f"starts[{place}]", f"{start}, must be in [1, {len(tokens)}]")
        if not all(0 <= token < vocab for token in tokens):
            problem = f"a token that the model lacks, must be in [0, {vocab - 1}]"
            raise InvalidArgument(f"windows[{place}]", problem)


def score(runner: Runner, rows: int, windows: Windows, starts: Sequence[int]) -> list[list[float]]:
    """The negative log-likelihoods, in nats, of each window's tokens from its start on."""
    losses: list[list[float]] = [[] for _ in windows]
    jobs = plan(windows, starts, rows)
    lanes = [_Lane(row, found, windows, starts, losses) for row, found in enumerate(jobs)]
    if isinstance(runner, Verifier):
        _verify(runner, lanes)
    else:
        _decode(runner, lanes)
    return losses


def plan(windows: Windows, starts: Sequence[int], rows: int) -> list[list[Job]]:
    """The jobs of each row, at most `rows`; the first has the most tokens to compute, the last the fewest."""
    order = sorted(range(len(windows)), key=lambda place: (windows[place], starts[place]))
    jobs = chained(order, windows, starts)
    total = sum(computed(job, windows) for job in jobs)
    lanes: dict[int, list[int]] = {}
    done = 0
    for job in jobs:
        lanes.setdefault(min(done * rows // max(total, 1), rows - 1), []).append(job.window)
        done += computed(job, windows)
    chains = [chained(lane, windows, starts) for lane in lanes.values()]
    return sorted(chains, key=lambda chain: -sum(computed(job, windows) for job in chain))


def chained(order: Iterable[int], windows: Windows, starts: Sequence[int]) -> list[Job]:
    """One row's jobs, in this order of the windows."""
    jobs: list[Job] = []
    held: Sequence[int] = ()  # the tokens that the row has computed
    before: int | None = None
    for place in order:
        tokens, first = windows[place], starts[place]
        if before is not None and starts[before] <= first:
            first = max(first, _common(windows[before], tokens))
        jobs.append(Job(place, min(first - 1, _common(held, tokens)), first))
        if first < len(tokens):
            held = tokens[:-1]
        before = place
    return jobs


def computed(job: Job, windows: Windows) -> int:
    """How many tokens: none where every score is the earlier window's."""
    length = len(windows[job.window])
    return length - 1 - job.position if job.first < length else 0


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


class _Lane:
    """A row with its jobs; `busy` until the last one is done."""

    def __init__(
        self,
        row: int,
        jobs: Sequence[Job],
        windows: Windows,
        starts: Sequence[int],
        losses: list[list[float]],
    ) -> None:
        self._row, self._jobs, self._losses = row, iter(jobs), losses
        self._windows, self._starts = windows, starts
        self._before = -1
        self._advance()

    @property
    def busy(self) -> bool:
        return self._job is not None

    def run(self, most: int) -> Run:
        """The next tokens of the job, at most so many."""
        assert self._job
        end = min(self._at + most, len(self._windows[self._job.window]) - 1)
        wanted = max(0, end - max(self._at, self._job.first - 1))
        tokens = tuple(self._windows[self._job.window][self._at : end])
        return Run(self._row, self._at, tokens, wanted)

    def take(self, run: Run, logits: Floats) -> None:
        """The logits that were wanted of the run."""
        assert self._job
        tokens = self._windows[self._job.window]
        self._at = run.start + len(run.tokens)
        following = tokens[self._at - run.logits + 1 : self._at + 1]
        self._losses[self._job.window].extend(map(loss, logits, following))
        if self._at == len(tokens) - 1:
            self._advance()

    def _advance(self) -> None:
        """To the next job that has tokens to compute."""
        for job in self._jobs:
            start = self._starts[job.window]
            if job.first > start:
                offset = start - self._starts[self._before]
                kept = self._losses[self._before][offset : offset + job.first - start]
                self._losses[job.window].extend(kept)
            self._before = job.window
            if job.first < len(self._windows[job.window]):
                self._job: Job | None = job
                self._at = job.position
                return
        self._job = None


def _verify(runner: Verifier, lanes: Sequence[_Lane]) -> None:
    """The rows take turns, so that a long window delays no other and calls are full."""
    waiting = deque(lane for lane in lanes if lane.busy)
    while waiting:
        taken: list[tuple[_Lane, Run]] = []
        left = _TOKENS
        while waiting and left:
            lane = waiting.popleft()
            taken.append((lane, lane.run(left)))
            left -= len(taken[-1][1].tokens)
        logits = runner.verify([run for _, run in taken])
        for lane, run in taken:
            lane.take(run, logits[: run.logits])
            logits = logits[run.logits :]
        waiting.extend(lane for lane, _ in taken if lane.busy)


def _decode(runner: Runner, lanes: Sequence[_Lane]) -> None:
    """A token of each row in a step. The rows with the fewest tokens are the last, so those that still have
    tokens are always the first.
    """
    while busy := [lane for lane in lanes if lane.busy]:
        assert all(lane.busy for lane in lanes[: len(busy)])
        runs = [lane.run(1) for lane in busy]
        logits = runner.decode([run.tokens[0] for run in runs], [run.start for run in runs])
        for place, (lane, run) in enumerate(zip(busy, runs, strict=True)):
            lane.take(run, logits[place : place + run.logits])


def loss(logits: Floats, token: int) -> float:
    """The negative log-likelihood of the token in nats: exponentials in float32, their sum in float64."""
    most = logits.max()
    total = np.exp(logits - most).sum(dtype=np.float64)
    return float(np.log(total) + np.float64(most) - np.float64(logits[token]))
