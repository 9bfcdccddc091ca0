"""Whether what is loaded but not measured is idle: some spin for a second after their last step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from loadtest.memory import PROC, tree

IDLE_CORES = 0.1
_LOOK_S = 0.25
_MOST_S = 5.0


def settle(cpu_s: Callable[[], float] | None = None, wait: Callable[[float], None] = time.sleep) -> float:
    """Waits until this process and all it started take under `IDLE_CORES`, for five seconds at most; the
    cores they took in the end.
    """
    read = cpu_s or (lambda: cpu_of_tree(os.getpid()))
    before = read()
    cores = 0.0
    for _ in range(int(_MOST_S / _LOOK_S)):
        wait(_LOOK_S)
        now = read()
        cores, before = (now - before) / _LOOK_S, now
        if cores < IDLE_CORES:
            break
    return cores


def cpu_of_tree(root: int) -> float:
    """Seconds of processor time that a process and all its descendants have taken, user and system."""
    return sum(map(_ticks, tree(root))) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    try:
        fields = (PROC / f"{pid}" / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended since
        return 0
    return int(fields[11]) + int(fields[12])
