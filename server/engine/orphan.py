"""A step must not outlive its server, nor a server a step that is broken for good.

Triton's stub notices the death of its server only while it waits for a request. A step that was sending a
metric or a response at that moment waits for an answer for ever, and keeps its memory.
"""

from __future__ import annotations

import os
import select
import signal
import threading


def exit_with_parent() -> None:
    """From now on this process ends when its parent ends."""
    parent = os.pidfd_open(os.getppid())
    threading.Thread(target=_exit_after, args=(parent,), name="orphan-watch", daemon=True).start()


def end_server() -> None:
    """Have the server drain and stop; its supervisor starts another.

    Ending only this process is not enough: Triton would still report the model as ready, and never answer the
    requests that it was running.
    """
    os.kill(os.getppid(), signal.SIGTERM)


def _exit_after(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll()
    # Not sys.exit: other threads may be stuck in calls that only the server could answer.
    os._exit(1)
