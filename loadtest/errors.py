"""What ends a benchmark, in words for the person who runs it."""

from __future__ import annotations


class BenchError(Exception):
    """Says what is wrong and what to do about it."""
