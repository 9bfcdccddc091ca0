"""After which decode steps the streams get their new tokens.

A response of any size costs 0.86 ms of processor time on its way through the ensemble to the client, on two
Zen 4 cores (server 0.29, detokenizer 0.23, client 0.22, the engine's sender 0.12): a quarter of what the
engine needs for a token of 32 streams. A single stream gets each token at once. Several streams get as many
tokens together as there are streams, up to eight: 14 ms of tokens of two streams, 75 of eight, too little for
a reader to see.

All streams get theirs after the same step. Responses wake up other threads, which disturbs the model's
threads: the responses of four streams after every step cost as much as those of eight.

Rules of this file: counts and times come in as numbers. No clock, no thread.
"""

from __future__ import annotations

from typing import Final

_MOST: Final = 8
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
    return min(max(running, 1), _MOST)
