"""What a prompt that arrives does to the streams beside it, from when their chunks came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtest.errors import BenchError
from loadtest.sample import Stream, percentile

# Start, tokens and seconds of a piece of the prompt, as the engine ran it.
Piece = tuple[int, int, float]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One run: seconds since its start. `streams` and `answer` have at least one chunk each, `pieces` only
    where the engine tells them.
    """

    streams: Sequence[Stream]
    arrived_s: float
    answer: Stream
    pieces: Sequence[Piece] = ()

    @property
    def first_s(self) -> float:
        return self.answer[0][0]

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.arrived_s

    def gaps_before(self) -> list[float]:
        """Between tokens of the streams, from when all of them ran until the prompt came."""
        began = max(stream[0][0] for stream in self.streams)
        return [gap for at, end, gap in _gaps(self.streams) if at >= began and end <= self.arrived_s]

    def gaps_beside(self) -> list[float]:
        """While the prompt was computed, any part of them."""
        return [gap for at, end, gap in _gaps(self.streams) if end > self.arrived_s and at <= self.first_s]


@dataclass(frozen=True, slots=True)
class Sample:
    """One repeat of a variant. `before` are the streams without the prompt, `beside` with it; `alone` is the
    prompt without the streams. Times are seconds.
    """

    side: str
    variant: str
    repeat: int
    itl_before_p50_s: float
    itl_before_p99_s: float
    itl_beside_p50_s: float
    itl_beside_p99_s: float
    ttft_beside_s: float
    ttft_alone_s: float
    pieces: Sequence[Piece] = ()


def sample_of(
    side: str, variant: str, repeat: int, together: Arrival, alone: Arrival, max_tokens: int
) -> Sample:
    """BenchError when a stream ended before the prompt was through, or none had two chunks before it."""
    for stream in together.streams:
        if sum(tokens for _, tokens in stream) >= max_tokens:
            problem = f"a stream's {max_tokens} tokens came before the prompt's first one"
            raise BenchError(f"{side}, {variant}: {problem}; a larger chunk, or more tokens, would do")
    before, beside = together.gaps_before(), together.gaps_beside()
    if not before or not beside:
        raise BenchError(f"{side}, {variant}: no chunks to time: are the answers streamed?")
    return Sample(
        side=side,
        variant=variant,
        repeat=repeat,
        itl_before_p50_s=percentile(before, 50),
        itl_before_p99_s=percentile(before, 99),
        itl_beside_p50_s=percentile(beside, 50),
        itl_beside_p99_s=percentile(beside, 99),
        ttft_beside_s=together.ttft_s,
        ttft_alone_s=alone.ttft_s,
        pieces=together.pieces,
    )


def _gaps(streams: Sequence[Stream]) -> list[tuple[float, float, float]]:
    """Begin and end of each gap, once for each token of the later chunk, with that token's share of it."""
    return [
        (at, end, (end - at) / tokens)
        for stream in streams
        for (at, _), (end, tokens) in pairwise(stream)
        for _ in range(tokens)
    ]
