"""One measurement: so many streams at once, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import numpy as np

from loadtest.errors import BenchError

# For each stream the chunks it got: seconds since the start of all, and the tokens in it.
Stream = Sequence[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Times are seconds. `decode_tokens_per_s` is the rate between the last stream's first token and the
    first stream's last one: while all streams decode and none waits for a prompt. `itl_*` is the time
    between two chunks, for each token of the later one its share: the pace, not what a reader waits for.
    `ttft_s` has one entry a stream.

    With beams all tokens of an answer come at its end: then there is no TTFT, ITL or decode rate.
    """

    model: str
    row: str
    streams: int
    beams: int
    repeat: int
    tokens: int
    chunks: int
    wall_s: float
    decode_tokens_per_s: float | None = None
    ttft_s: tuple[float, ...] = ()
    itl_p50_s: float | None = None
    itl_p90_s: float | None = None

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over the time from the requests to the last token: prompts included."""
        return self.tokens / self.wall_s

    @property
    def ttft_p50_s(self) -> float | None:
        return median(self.ttft_s) if self.ttft_s else None

    @property
    def ttft_p90_s(self) -> float | None:
        return percentile(self.ttft_s, 90) if self.ttft_s else None


def sample_of(
    model: str, row: str, beams: int, repeat: int, streams: Sequence[Stream], *, may_join: bool = False
) -> Sample:
    """BenchError if no stream of a greedy answer had a second chunk: then there is nothing to time.

    A server of a tiny model computes faster than it sends, and `may_join` all tokens of an answer.
    """
    sample = Sample(
        model=model,
        row=row,
        streams=len(streams),
        beams=beams,
        repeat=repeat,
        tokens=sum(tokens for stream in streams for _, tokens in stream),
        chunks=sum(map(len, streams)),
        wall_s=max(stream[-1][0] for stream in streams),
    )
    if beams > 1:
        return sample
    gaps = [gap for stream in streams for gap in token_gaps(stream)]
    if not gaps and not may_join:
        raise BenchError(f"{row}: every answer came in one piece, is that a stream?")
    return replace(
        sample,
        decode_tokens_per_s=_shared_rate(streams),
        ttft_s=tuple(stream[0][0] for stream in streams),
        itl_p50_s=percentile(gaps, 50) if gaps else None,
        itl_p90_s=percentile(gaps, 90) if gaps else None,
    )


def token_gaps(stream: Stream) -> list[float]:
    """The time since the token before, for each token after the first chunk's."""
    return [(now - before) / tokens for (before, _), (now, tokens) in pairwise(stream) for _ in range(tokens)]


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest values, in proportion; there must be at least one."""
    return float(np.percentile(values, percent))


def _shared_rate(streams: Sequence[Stream]) -> float | None:
    begin = max(stream[0][0] for stream in streams)
    end = min(stream[-1][0] for stream in streams)
    if end <= begin:
        return None
    tokens = sum(count for stream in streams for at, count in stream if begin < at <= end)
    return tokens / (end - begin)
