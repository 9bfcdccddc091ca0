"""How many tokens a streamed response brings.

Whatever is in it, a response costs its way through the ensemble to the client: 0.86 ms of processor time on
two Zen 4 cores (server 0.29, detokenizer 0.23, client 0.22, the engine's sender 0.12), a quarter of
what the engine needs for a token of 32 streams. One stream gets each token at once. The more streams there
are, the longer a step takes and the less a reader sees of the difference: they get up to four together.

Rules of this file: counts and durations come in as numbers. No clock, no thread.
"""

from __future__ import annotations

from typing import Final

# Streams for each token of a response, and the most tokens.
_STREAMS: Final = 4
_MOST: Final = 4
# On a slow engine a token does not wait for others that take this long.
LONGEST_NS: Final = 80_000_000


def is_due(unsent: int, waited_ns: int, interval: int, running: int) -> bool:
    """Whether so many tokens go out now, the last response being `waited_ns` ago.

    `interval` is the setting `stream_interval`: tokens a response, or 0 for a number that suits the streams
    that run, no longer than about `LONGEST_NS` apart.
    """
    if interval:
        return unsent >= interval
    return unsent >= tokens_together(running) or waited_ns >= LONGEST_NS


def tokens_together(running: int) -> int:
    """1 to 4: one for every four streams."""
    return min(max(running // _STREAMS, 1), _MOST)
