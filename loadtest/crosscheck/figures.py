"""The figures that are compared, from the times of each request, by one definition for both tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean, median

from loadtest.errors import BenchError


@dataclass(frozen=True, slots=True)
class Timing:
    """One answered request. Seconds: `sent_s` and `end_s` on a clock of the tool's own, `ttft_s` since
    `sent_s`. `end_s` is the last chunk with text; `tokens` came in all, at least 2."""

    sent_s: float
    ttft_s: float
    end_s: float
    tokens: int

    @property
    def e2e_s(self) -> float:
        return self.end_s - self.sent_s

    @property
    def itl_s(self) -> float:
        """The mean of the request: its time after the first token, over the tokens after the first."""
        return (self.e2e_s - self.ttft_s) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. `itl_mean_s` is the mean over requests of a request's mean; `tokens_per_s` goes from the
    first request to the last chunk."""

    ttft_p50_s: float
    itl_mean_s: float
    e2e_p50_s: float
    tokens_per_s: float


MEASURES = tuple(item.name for item in fields(Figures))


def figures_of(tool: str, timings: Sequence[Timing]) -> Figures:
    """BenchError where the run has no request, or an answer of a single token."""
    if not timings:
        raise BenchError(f"{tool}: no request was answered")
    if short := sum(timing.tokens < 2 for timing in timings):
        raise BenchError(f"{tool}: {short} answers of less than 2 tokens have no inter-token latency")
    wall_s = max(timing.end_s for timing in timings) - min(timing.sent_s for timing in timings)
    return Figures(
        ttft_p50_s=median(timing.ttft_s for timing in timings),
        itl_mean_s=fmean(timing.itl_s for timing in timings),
        e2e_p50_s=median(timing.e2e_s for timing in timings),
        tokens_per_s=sum(timing.tokens for timing in timings) / wall_s,
    )
