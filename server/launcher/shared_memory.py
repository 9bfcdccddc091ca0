"""The shared-memory regions of a server: named after it, and removed after its end.

Triton's Python steps exchange tensors through files in /dev/shm, which a killed server leaves behind. All
files of one server have the same prefix, and a lock file with that prefix is held while any process of the
server lives: the launcher and, since they inherit the lock, Triton and its steps. A process id would not show
that, since containers may share /dev/shm but not their process ids.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/dev/shm")
MARK = "halimede_"
PREFIX = re.compile(rf"{MARK}\d+_[0-9a-f]{{8}}_")
LOCK = "lock"
# A killed process holds its files until the kernel has freed its memory.
DYING_SECONDS = 10.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Claim:
    prefix: str  # of every region, "halimede_PID_TOKEN_"
    lock: int  # file descriptor that Triton must inherit


@contextmanager
def claim(folder: Path = FOLDER) -> Iterator[Claim]:
    """A new prefix; its regions are removed at the end, unless a process of the server lives on."""
    prefix, lock = _new_claim(folder)
    try:
        yield Claim(prefix, lock)
    finally:
        os.close(lock)
        deadline = time.monotonic() + DYING_SECONDS
        while _remove_if_dead(folder, prefix) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def remove_leftovers(folder: Path = FOLDER) -> int:
    """Removes the regions of dead servers; returns how many there were."""
    found = (PREFIX.match(path.name) for path in folder.iterdir())
    removed = [_remove_if_dead(folder, prefix) for prefix in {match[0] for match in found if match}]
    return sum(filter(None, removed))


def _new_claim(folder: Path) -> tuple[str, int]:
    while True:
        prefix = f"{MARK}{os.getpid()}_{secrets.token_hex(4)}_"
        lock = _take(folder / f"{prefix}{LOCK}", os.O_CREAT | os.O_EXCL)
        if lock is None:
            continue
        if os.fstat(lock).st_nlink:
            return prefix, lock
        # Another launcher found the file before we had locked it, and removed it as a leftover.
        os.close(lock)


def _remove_if_dead(folder: Path, prefix: str) -> int | None:
    """How many regions were removed; None if the server lives or belongs to another user."""
    path = folder / f"{prefix}{LOCK}"
    lock = _take(path) if path.exists() else None
    if lock is None and path.exists():
        return None
    try:
        regions = [region for region in folder.glob(f"{prefix}*") if region != path]
        with suppress(PermissionError):  # another user's
            for region in [*regions, path]:
                region.unlink(missing_ok=True)
    finally:
        if lock is not None:
            os.close(lock)
    return len(regions)


def _take(path: Path, flags: int = 0) -> int | None:
    """The lock's file descriptor; None if a living process holds the lock or it belongs to another user."""
    try:
        lock = os.open(path, os.O_RDWR | flags, 0o600)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
