"""Memory of a process with all that it started, from /proc."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `rss` counts a page once for each process that maps it; `pss` divides it among them, so that
    the sum over a tree counts shared memory once.
    """

    rss: int = 0
    pss: int = 0
    processes: int = 0


def memory_of_tree(root: int, proc: Path = PROC) -> Memory:
    rss = pss = processes = 0
    for pid in tree(root, proc):
        try:
            text = (proc / str(pid) / "smaps_rollup").read_text()
        except OSError:  # it has ended since
            continue
        sizes = {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", text)}
        rss, pss, processes = rss + sizes["Rss"], pss + sizes["Pss"], processes + 1
    return Memory(rss, pss, processes)


def tree(root: int, proc: Path = PROC) -> Iterator[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in proc.glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
        except OSError:  # it has ended since
            continue
        # The name may hold anything, brackets and spaces too; after it come the state and the parent.
        parent = int(status.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(folder.name))
    pending = [root]
    while pending:
        pid = pending.pop()
        yield pid
        pending += children.get(pid, [])
