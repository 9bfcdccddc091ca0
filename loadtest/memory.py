"""Memory of a process with all that it started, from /proc."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PROC = Path("/proc")
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `rss` counts a page once for each process that maps it; `pss` divides it among them, so that
    the sum over a tree counts shared memory once.
    """

    rss: int = 0
    pss: int = 0
    processes: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss, self.processes + other.processes)


def memory_of_tree(root: int, proc: Path = PROC) -> Memory:
    total = Memory()
    for pid in tree(root, proc):
        total += _memory_of(pid, proc)
    return total


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


def _memory_of(pid: int, proc: Path) -> Memory:
    try:
        text = (proc / str(pid) / "smaps_rollup").read_text()
    except OSError:  # it has ended since
        return Memory()
    sizes = {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", text)}
    return Memory(sizes["Rss"], sizes["Pss"], 1)


class PeakMemory:
    """Watches a tree while its `with` block runs; `peak` is the look with the most memory."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = Memory()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, memory_of_tree(self._root), key=lambda memory: memory.pss)
