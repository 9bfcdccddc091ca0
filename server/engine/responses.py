"""After which decode steps the streams get their new tokens.

Whatever is in it, a response costs its way through the ensemble to the client: 0.86 ms of processor time on
two Zen 4 cores (server 0.29, detokenizer 0.23, client 0.22, the engine's sender 0.12), a quarter of what the
engine needs for a token of 32 streams. One stream gets each token at once. Several get as many together as
there are streams, up to eight: 14 ms of tokens of two streams, 75 of eight, too little for a reader to see.

All of them get theirs after the same step. Responses wake up other threads, which disturbs the model's: those
of four streams after every step cost as much as those of eight streams after every step do.

Rules of this file: counts and times come in as numbers. No clock, no thread.
"""

from __future__ import annotations

from typing import Final

_MOST: Final = 8
# On a slow engine a token does not wait for others that take this long.
LONGEST_NS: Final = 150_000_000


class Responses:
    """`interval` is the setting `stream_interval`: steps from one response to the next, or 0 for a number
    that suits the streams that run, about `LONGEST_NS` apart at most.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._steps = 0
        self._sent_ns = 0

    def decoded(self, now: int, running: int) -> bool:
        """A step has run with so many streams: whether their tokens go out now."""
        self._steps += 1
        due = self._steps >= (self._interval or tokens_together(running))
        if not due and (self._interval or now - self._sent_ns < LONGEST_NS):
            return False
        self._steps, self._sent_ns = 0, now
        return True


def tokens_together(running: int) -> int:
    """1 to 8: as many as there are streams."""
    return min(max(running, 1), _MOST)
