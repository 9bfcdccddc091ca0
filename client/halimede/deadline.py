"""A timeout that starts to run when it is made and holds over all attempts."""

from __future__ import annotations

import math

from halimede.clock import Clock
from halimede.errors import DeadlineExceeded, InvalidArgument

__all__ = ["Deadline"]


class Deadline:
    """`timeout_s` is a positive number of seconds; infinity means no deadline."""

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
        """The seconds left for an attempt; raises DeadlineExceeded where there are none."""
        remaining_s = self.remaining_s()
        if remaining_s == 0:
            raise DeadlineExceeded.of("timeout", f"{self._timeout_s} s", "has passed")
        return remaining_s
