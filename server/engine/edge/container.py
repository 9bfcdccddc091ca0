"""What this process may use of the machine: cores and memory, by its affinity and its control groups.

    python server/engine/edge/container.py       {"cores": 2, "free_memory": 8388608000}

A group's limit applies to every group below it, so all groups from the process's own up to the root count,
and the smallest limit decides. In a container the root is usually the container's own group. Without a
separate cgroup namespace, the path in /proc/self/cgroup leads to that group, or to nothing that is mounted.

Linux' Documentation/admin-guide/cgroup-v2.rst, and cgroup-v1/memory.rst and scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Memory:
    """File names of one cgroup version: the limit, the usage, and the key of file cache in memory.stat."""

    limit: str
    used: str
    cache: tuple[str, ...]


_MEMORY_V2: Final = _Memory("memory.max", "memory.current", ("inactive_file", "active_file"))
_MEMORY_V1: Final = _Memory(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")
)


def usable_cores(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Cores that this process may keep busy: the smaller of affinity and quota, rounded up; at least 1."""
    affinity = len(os.sched_getaffinity(0))
    return min([affinity, *(max(1, math.ceil(quota)) for quota in _quotas(proc, groups))])


def free_memory(proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Bytes that can still be had: the machine's available memory, or what a control group leaves of it.

    File cache counts as free, as it does in MemAvailable: the kernel takes it back before anything fails.
    """
    meminfo = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    available = int(meminfo["MemAvailable"].split()[0]) * 1024
    return max(0, min([available, *_left(proc, groups)]))


def _quotas(proc: Path, groups: Path) -> Iterator[float]:
    for folder in _folders(proc, groups, ""):
        match _words(folder / "cpu.max"):
            case [quota, period] if quota.isdigit():  # "max" is none
                yield int(quota) / int(period)
    for folder in _folders(proc, groups, "cpu"):
        quota, period = (_word(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():  # -1 is none
            yield int(quota) / int(period)


def _left(proc: Path, groups: Path) -> Iterator[int]:
    for controller, files in (("", _MEMORY_V2), ("memory", _MEMORY_V1)):
        for folder in _folders(proc, groups, controller):
            limit, used = _word(folder / files.limit), _word(folder / files.used)
            if limit.isdigit() and used.isdigit():  # "max" is none
                yield int(limit) - max(0, int(used) - _cache(folder, files.cache))


def _cache(folder: Path, keys: tuple[str, ...]) -> int:
    words = _words(folder / "memory.stat")
    found = dict(zip(words[::2], words[1::2], strict=False))
    return sum(int(found.get(key, 0)) for key in keys)


def _folders(proc: Path, groups: Path, controller: str) -> Iterator[Path]:
    """The group of the process and those above it; of version 2 where `controller` is empty.

    Next to version 1 there may be a version 2 without controllers, in `unified`, which has none of the files.
    """
    mount = groups / controller if controller else groups
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = mount / path.strip("/")
            inside = own.is_dir() and ".." not in own.parts
            yield from [own, *own.parents][: len(own.parts) - len(mount.parts) + 1] if inside else [mount]
            return


def _lines(file: Path) -> list[str]:
    """None where there is no such file, or it may not be read: then it sets no limit."""
    try:
        return file.read_text("utf-8").splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _word(file: Path) -> str:
    return (_words(file) or [""])[0]


if __name__ == "__main__":
    print(json.dumps({"cores": usable_cores(), "free_memory": free_memory()}))
