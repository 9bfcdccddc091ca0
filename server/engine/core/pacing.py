"""How many tokens at a time: of a long prompt for a step, and of an answer for a response.

A step is one decode for all streams and a chunk of one prompt. A chunk of fixed length takes longer the
longer its past is, since its attention reads all of it. So while streams run, a chunk gets a time budget,
`stall` times that of a decode, and its length follows from what chunks took so far: the streams' inter-token
latency is about (1 + stall) times what it is without the prompt, wherever in the prompt the chunk is.
Sarathi-Serve (Agrawal et al., 2024) bounds the tokens of a step by such a budget.

A response of any size costs 0.86 ms of processor time on its way through the ensemble to the client, on two
Zen 4 cores (server 0.29, detokenizer 0.23, client 0.22, the engine's sender 0.12): a quarter of what the
engine needs for a token of 32 streams. A single stream gets each token at once. Several streams get as many
tokens together as there are streams, up to eight: 14 ms of tokens of two streams, 75 of eight, too little for
a reader to see. All streams get theirs after the same step: responses wake up other threads, which disturbs
the model's threads, and the responses of four streams after every step cost as much as those of eight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

# Each position of the past adds this share to the cost that a token of the chunk has without a past:
# SmolLM2-135M takes 0.8 ms a token at the start of a prompt, and twice that after 1,600 tokens. Only the step
# from one chunk to the next depends on it: the time of chunks is measured.
PAST_DOUBLES: Final = 1600
# Products run over blocks of rows, and each length has its own bindings.
GRAIN: Final = 8
# With fewer tokens the call costs more than the tokens: next to a single stream a prompt would never end.
LEAST: Final = 16
# Before anything has been timed.
FIRST_CHUNK: Final = 32
# The weight of the newest time. A machine's hiccup counts at most as twice the usual.
_NEWEST: Final = 0.25
_TWICE: Final = 2.0
# One call for both does not show the time of the decode, and the number of streams changes. So the two are
# computed separately once in so many steps.
APART_EVERY: Final = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """`chunk` is the most tokens of a step; `stall` how many decode steps' time a chunk may take while
    streams run, 0 for chunks that are always as long as allowed.
    """

    chunk: int
    stall: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Recent times, in seconds: of a decode, and of a prompt token without a past. Also the number of steps
    since a decode was last timed alone.
    """

    decode_s: float | None = None
    token_s: float | None = None
    untimed: int = 0

    @property
    def apart(self) -> bool:
        """Whether the next decode is timed alone instead of being computed together with a chunk."""
        return self.untimed + 1 >= APART_EVERY

    def decoded(self, seconds: float) -> Pace:
        """Called after a decode alone; its time stands for the decodes that were not timed."""
        return replace(self, decode_s=_blended(self.decode_s, seconds, self.untimed + 1), untimed=0)

    def prefilled(self, start: int, tokens: int, seconds: float) -> Pace:
        """Called after a chunk of so many tokens that follow `start` others."""
        return replace(self, token_s=_blended(self.token_s, seconds / weight(start, tokens)))

    def together(self, start: int, tokens: int, seconds: float) -> Pace:
        """Called after such a chunk and a decode in one call: the chunk took what the decode did not."""
        prefilled = self.prefilled(start, tokens, seconds - (self.decode_s or 0))
        return replace(prefilled, untimed=self.untimed + 1)


def chunk_tokens(pace: Pace, limits: Limits, start: int, left: int, *, first: bool, beside: bool) -> int:
    """Tokens of the next chunk, of `left` that are not computed yet and `start` that are.

    `first`: none of this prompt has been computed yet, though a cached prefix may be there. `beside`: streams
    wait for the step. A prompt of one chunk runs whole: it delays them once, and a burst of short
    prompts would otherwise be prefilled between decodes of few rows.
    """
    whole = first and weight(start, left) <= weight(0, limits.chunk)
    if whole or not beside or not limits.stall:
        return min(left, limits.chunk)
    if pace.decode_s is None or pace.token_s is None:
        return min(left, limits.chunk, FIRST_CHUNK)
    fitting = limits.stall * pace.decode_s / (pace.token_s * weight(start, 1))
    return min(left, limits.chunk, max(LEAST, int(fitting) // GRAIN * GRAIN))


def weight(start: int, tokens: int) -> float:
    """A chunk's work, counted in prompt tokens without a past."""
    return tokens * (1 + (start + tokens / 2) / PAST_DOUBLES)


def _blended(known: float | None, seconds: float, times: int = 1) -> float | None:
    if seconds <= 0:  # a clock that did not move says nothing
        return known
    if known is None:
        return seconds
    return known + (1 - (1 - _NEWEST) ** times) * (min(seconds, _TWICE * known) - known)


_TOGETHER: Final = 8
# On a slow engine, a token does not wait longer than this for the next ones.
LONGEST_NS: Final = 150_000_000


class Responses:
    """`interval` is the setting `stream_interval`: steps from one response to the next. 0 chooses it by the
    number of running streams, with responses at most about `LONGEST_NS` apart.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._steps = 0
        self._sent_ns = 0

    def decoded(self, now: int, running: int) -> bool:
        """Called after each step with the number of streams; whether their tokens go out now."""
        self._steps += 1
        due = self._steps >= (self._interval or tokens_together(running))
        if not due and (self._interval or now - self._sent_ns < LONGEST_NS):
            return False
        self._steps, self._sent_ns = 0, now
        return True


def tokens_together(running: int) -> int:
    """1 to 8: as many as there are streams."""
    return min(max(running, 1), _TOGETHER)
