"""What is wrong with an offered load."""

from __future__ import annotations

from loadtest.errors import BenchError


class TrafficError(BenchError):
    """A profile, a trace or a flag is at fault; names the key, its value and the limit."""
