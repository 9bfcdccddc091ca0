"""A step must not outlive its server, nor a server a step that is broken for good.

Triton's stub sees its server die only where it waits for a request: a step that was sending a metric or a
response at that moment waits for an answer for ever, and keeps its memory.
"""

from __future__ import annotations

import os
import select
import signal
import threading


def exit_with_parent() -> None:
    """From now on this process ends when the one that started it does."""
    parent = os.pidfd_open(os.getppid())
    threading.Thread(target=_exit_after, args=(parent,), name="orphan-watch", daemon=True).start()


def end_server() -> None:
    """Have the server stop, after what it runs: whoever watches over it starts another.

    To end this process alone would not do: Triton goes on to call the model ready, and never answers what it
    was running.
    """
    os.kill(os.getppid(), signal.SIGTERM)


def _exit_after(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll()
    # Not sys.exit: other threads may be stuck in calls that only the server could answer.
    os._exit(1)
