"""Time as it is passed in: tests bring their own, and nothing else sleeps or reads a clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

__all__ = ["AsyncSleep", "Clock", "Sleep"]

Clock = Callable[[], float]  # monotonic seconds
Sleep = Callable[[float], None]
AsyncSleep = Callable[[float], Awaitable[None]]
