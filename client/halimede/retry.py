"""When to try again: a decision, no clock and no sleep."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from halimede.errors import HalimedeError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter, for retryable errors before the first token.

    attempts: how often a request is sent at most; 1 never retries. Before attempt n + 1 the client
    waits a random part of min(cap_s, base_s * 2 ** (n - 1)) seconds.
    """

    attempts: int = 4
    base_s: float = 0.1
    cap_s: float = 2.0
    random: Callable[[], float] = random.random

    def delay_s(self, error: HalimedeError, failures: int, remaining_s: float | None) -> float | None:
        """How long to wait after that many failures; None to give up and raise the error."""
        if not error.retryable or failures >= self.attempts:
            return None
        longest_s = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 30))
        delay_s = self.random() * longest_s
        if remaining_s is not None and delay_s >= remaining_s:
            return None
        return delay_s
