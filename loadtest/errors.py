"""The errors that end a load test or a benchmark, with messages for the person who runs it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


class BenchError(Exception):
    """Says what is wrong and what to do about it."""


class TrafficError(BenchError):
    """A command, a profile or a trace is wrong; names the key or the option, its value and the limit."""


def exit_code(run: Callable[[], int]) -> int:
    """Of a command: what `run` returns, 1 where it failed, 2 where the command is wrong, 130 where it was
    interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, TrafficError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
