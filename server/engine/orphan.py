"""A step must not outlive its server.

Triton's stub sees its server die only where it waits for a request: a step that was sending a metric or a
response at that moment waits for an answer for ever, and keeps its memory.
"""

from __future__ import annotations

import os
import select
import threading


def exit_with_parent() -> None:
    """From now on this process ends when the one that started it does."""
    parent = os.pidfd_open(os.getppid())
    threading.Thread(target=_exit_after, args=(parent,), name="orphan-watch", daemon=True).start()


def _exit_after(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll()
    # Not sys.exit: other threads may be stuck in calls that only the server could answer.
    os._exit(1)
