"""Publishing is one rename: a folder appears whole and verified, or not at all.

Invariants
- work happens in `.building-VERSION`, next to the target on the same file system, and is flushed to
  disk before the rename (Triton takes a folder whose name begins with a number for a version);
- an existing engine is replaced only when asked, and is put back if the rename fails;
- one build at a time holds the lock of a model, so everything else that it finds there is stale.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from build.errors import BadInput, BuildError

_PLACEHOLDER = ".gitkeep"
Rename = Callable[[Path, Path], object]


class Slot:
    """One engine's place NAME_engine/VERSION, the folder it is built in, and the engine that it replaces."""

    def __init__(self, target: Path, rename: Rename) -> None:
        self.target = target
        self._rename = rename
        self.staging = target.with_name(f".building-{target.name}")
        self._previous = target.with_name(f".previous-{target.name}")

    def occupied(self) -> bool:
        return _holds_an_engine(self.target)

    def recover(self) -> None:
        """Cleans up after a build that was killed; call it with the lock held."""
        if self._previous.is_dir() and not self.occupied():
            self._rename(self._previous, self.target)
        for stale in (self.staging, self._previous):
            if stale.exists():
                shutil.rmtree(stale)

    def publish(self) -> None:
        """The staged folder becomes the target."""
        _flush(self.staging)
        occupied = self.occupied()
        # Aside, in, and only then away: at every moment a whole engine is here for `recover`.
        if occupied:
            self._rename(self.target, self._previous)
        elif self.target.is_dir():
            shutil.rmtree(self.target)
        try:
            self._rename(self.staging, self.target)
        except OSError:
            if occupied:
                self._rename(self._previous, self.target)
            raise
        _flush_entry(self.target.parent)
        if occupied:
            shutil.rmtree(self._previous)


def place(folder: Path, new_version: bool) -> Path:
    """Where in NAME_engine to build: its newest version, which a server loads, or the one after it."""
    versions = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()]
    newest = max((number for number in versions if _holds_an_engine(folder / f"{number}")), default=0)
    return folder / f"{newest + 1 if new_version else max(newest, 1)}"


@contextmanager
def staged(target: Path, force: bool, rename: Rename = Path.replace) -> Iterator[Slot]:
    """A slot with an empty `staging` folder, which is removed unless it is published.

    BadInput when the target exists and `force` is not given, BuildError when another build runs.
    """
    slot = Slot(target, rename)
    if slot.occupied() and not force:
        raise BadInput(f"{target} exists: add --force to replace it, --new-version to keep it")
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent):
        target.parent.mkdir(exist_ok=True)
        slot.recover()
        slot.staging.mkdir()
        try:
            yield slot
        finally:
            if slot.staging.exists():
                shutil.rmtree(slot.staging)
            if not any(target.parent.iterdir()):  # Triton takes every folder for a model
                target.parent.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds an advisory lock of a file next to the folder; the kernel drops it when the process dies.

    NFS locks only files that are open for writing. The holder removes the file when done, and a lock of a
    removed file excludes no process; therefore the comparison.
    """
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError) as error:
            raise BuildError(f"{folder}: another build is running: wait for it to end") from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> None:
    """Writes a small file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        _flush_entry(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _holds_an_engine(version: Path) -> bool:
    return version.is_dir() and any(path.name != _PLACEHOLDER for path in version.iterdir())


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        _flush_entry(path)
    _flush_entry(folder)


def _flush_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
