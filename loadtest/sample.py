"""One measurement: so many streams at once, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from loadtest.errors import BenchError

# For each stream the chunks it got: seconds since the start of all, and the tokens in it.
Stream = Sequence[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Times are seconds. `decode_tokens_per_s` is the rate between the last stream's first token and the
    first stream's last one: while all streams decode and none waits for a prompt. `itl_*` is the time
    between two chunks, for each token of the later one its share: the pace, not what a reader waits for.
    `ttft_s` has one entry a stream.
    """

    row: str
    streams: int
    repeat: int
    tokens: int
    chunks: int
    wall_s: float
    decode_tokens_per_s: float | None
    ttft_s: tuple[float, ...]
    itl_p50_s: float
    itl_p90_s: float

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over the time from the requests to the last token: prompts included."""
        return self.tokens / self.wall_s

    @property
    def ttft_p50_s(self) -> float:
        return median(self.ttft_s)

    @property
    def ttft_p90_s(self) -> float:
        return percentile(self.ttft_s, 90)


def sample_of(row: str, repeat: int, streams: Sequence[Stream]) -> Sample:
    """BenchError when no stream had a second chunk: then there is nothing to time."""
    gaps = [gap for stream in streams for gap in token_gaps(stream)]
    if not gaps:
        raise BenchError(f"{row}: every answer came in one piece, is that a stream?")
    return Sample(
        row=row,
        streams=len(streams),
        repeat=repeat,
        tokens=sum(tokens for stream in streams for _, tokens in stream),
        chunks=sum(map(len, streams)),
        wall_s=max(stream[-1][0] for stream in streams),
        decode_tokens_per_s=_shared_rate(streams),
        ttft_s=tuple(stream[0][0] for stream in streams),
        itl_p50_s=percentile(gaps, 50),
        itl_p90_s=percentile(gaps, 90),
    )


def token_gaps(stream: Stream) -> list[float]:
    """The time since the token before, for each token after the first chunk's."""
    return [(now - before) / tokens for (before, _), (now, tokens) in pairwise(stream) for _ in range(tokens)]


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest values, in proportion; there must be at least one."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _shared_rate(streams: Sequence[Stream]) -> float | None:
    begin = max(stream[0][0] for stream in streams)
    end = min(stream[-1][0] for stream in streams)
    if end <= begin:
        return None
    tokens = sum(count for stream in streams for at, count in stream if begin < at <= end)
    return tokens / (end - begin)
