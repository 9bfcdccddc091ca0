"""How long the client waits: for a connection, for an answer, and between two attempts.

Tests bring a clock and a sleep of their own. Nothing else in the client reads a clock or sleeps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from halimede.errors import DeadlineExceeded, HalimedeError, InvalidArgument

__all__ = [
    "CONNECT_S",
    "KEEPALIVE_S",
    "AsyncSleep",
    "Clock",
    "Deadline",
    "RetryPolicy",
    "Sleep",
    "checked_keepalive",
    "milliseconds",
    "with_grace",
]

Clock = Callable[[], float]  # monotonic seconds
Sleep = Callable[[float], None]
AsyncSleep = Callable[[float], Awaitable[None]]

CONNECT_S = 5.0
GRACE_S = 2.0
KEEPALIVE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter, for retryable errors before the first token.

    attempts: the most times that a request is sent; 1 never retries. Before attempt n + 1 the client
    waits a random share of min(cap_s, base_s * 2 ** (n - 1)) seconds.
    """

    attempts: int = 4
    base_s: float = 0.1
    cap_s: float = 2.0
    random: Callable[[], float] = random.random

    def delay_s(self, error: HalimedeError, failures: int, remaining_s: float | None) -> float | None:
        """Seconds to wait after so many failures; None means to give up and raise the error."""
        if not error.retryable or failures >= self.attempts:
            return None
        longest_s = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 30))
        delay_s = self.random() * longest_s
        if remaining_s is not None and delay_s >= remaining_s:
            return None
        return delay_s


class Deadline:
    """The end of all attempts of a request: `timeout_s` seconds after it is made. Infinity means none.

    Raises InvalidArgument unless `timeout_s` is more than 0.
    """

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        if not timeout_s > 0:
            raise InvalidArgument.of("timeout", timeout_s, "must be more than 0 seconds")
        self._timeout_s = timeout_s
        self._clock = clock
        self._ends_s = clock() + timeout_s

    def remaining_s(self) -> float | None:
        """Seconds left, never below 0; None without a deadline."""
        return None if math.isinf(self._timeout_s) else max(0.0, self._ends_s - self._clock())

    def allowance_s(self) -> float | None:
        """Seconds left for one attempt, or None. Raises DeadlineExceeded when none are left."""
        remaining_s = self.remaining_s()
        if remaining_s == 0:
            raise DeadlineExceeded.of("timeout", f"{self._timeout_s} s", "has passed")
        return remaining_s


def checked_keepalive(keepalive_s: float) -> None:
    """Raises InvalidArgument unless `keepalive_s` is more than 0; infinity switches the probes off."""
    if not keepalive_s > 0:
        raise InvalidArgument.of("keepalive", keepalive_s, "must be more than 0 seconds, or inf for never")


def milliseconds(duration_s: float) -> int:
    """At least 1, at most 2^31 - 1, which means never."""
    return round(min(max(1.0, duration_s * 1000), 2.0**31 - 1))


def with_grace(timeout_s: float | None) -> float | None:
    """How long a transport waits: the server ends the request at its timeout, then it has to say so."""
    return None if timeout_s is None else timeout_s + GRACE_S
