"""What ends a benchmark, in words for the person who runs it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


class BenchError(Exception):
    """Says what is wrong and what to do about it."""


def exit_code(run: Callable[[], int]) -> int:
    """That of a benchmark's command: what it returns, 1 where it failed, 130 where it was interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
