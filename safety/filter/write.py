"""The folder of the output: parts of bounded size, each of which appears whole, and the state to go on from.

Invariants
- `kept-NNNNN.jsonl` are whole: a part grows in `.unfinished` and is moved out when it is full and on disk;
- the state is written after what it speaks of is on disk, so going on from it cuts off what came later and
  repeats it: the bytes are those of a run that was never broken off.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from safety.filter.errors import FilterError

UNFINISHED = ".unfinished"
_STATE = "state.json"
_INDEX = "index"
_LOCK = "lock"


class Disk:
    """What changes files. Tests put one that fails in its place."""

    def write(self, file: BinaryIO, data: bytes) -> None:
        file.write(data)

    def sync(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)
        _sync_folder(new.parent)

    def save(self, path: Path, data: bytes, through: Path) -> None:
        """The whole file or none: it is written in the folder `through` first."""
        temporary = through / f"{path.name}.new"
        with temporary.open("wb") as file:
            self.write(file, data)
            self.sync(file)
        self.rename(temporary, path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the output that is whole."""

    name: str
    bytes: int
    documents: int
    sha256: str


class Parts:
    """Lines to files of about `limit` bytes: a part ends with the line that reaches it."""

    def __init__(self, out: Path, limit: int, disk: Disk) -> None:
        self._out, self._limit, self._disk = out, limit, disk
        self.done: list[Part] = []
        self.size = 0
        self.documents = 0
        self._file: BinaryIO | None = None

    def resume(self, done: list[Part], size: int, documents: int) -> None:
        """Back to a state: what came after it is cut off. FilterError when less than that is there."""
        self.done, self.size, self.documents = done, size, documents
        whole, partial = self._paths(len(done))
        if whole.exists() and not partial.exists():
            self._disk.rename(whole, partial)
        for path in (*self._out.glob("kept-*.jsonl"), *partial.parent.glob("kept-*.jsonl")):
            if path != partial and path.name not in {part.name for part in done}:
                path.unlink()
        for part in done:
            if _size(self._out / part.name) != part.bytes:
                raise FilterError(f"{self._out / part.name}: not as it was written: use another folder")
        self._file = _cut(partial, size)

    def write(self, line: bytes) -> None:
        if self._file is None:
            self._file = self._paths(len(self.done))[1].open("wb")
        self._disk.write(self._file, line)
        self.size += len(line)
        self.documents += 1
        if self.size >= self._limit:
            self.finish()

    def sync(self) -> None:
        if self._file is not None:
            self._disk.sync(self._file)

    def finish(self) -> None:
        """The part becomes whole, however small; nothing happens where none was begun."""
        whole, partial = self._paths(len(self.done))
        if self._file is None or not self.size:
            return
        self._disk.sync(self._file)
        self._file.close()
        self._file = None
        with partial.open("rb") as file:
            digest = _digest(file)
        self._disk.rename(partial, whole)
        self.done = [*self.done, Part(whole.name, self.size, self.documents, digest)]
        self.size = self.documents = 0

    def close(self) -> None:
        """Lets go of the file. What it buffers may be lost, the disk being full; the state is older."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                self._file = None

    def _paths(self, number: int) -> tuple[Path, Path]:
        name = f"kept-{number:05}.jsonl"
        return self._out / name, self._out / UNFINISHED / name


class Rows:
    """The index on disk: a row of bytes for each kept document, so that a resumed run knows them."""

    def __init__(self, out: Path, row: int, disk: Disk) -> None:
        self._path, self._row, self._disk = out / UNFINISHED / _INDEX, row, disk
        self.size = 0
        self._file: BinaryIO | None = None

    def resume(self, size: int) -> Iterator[bytes]:
        """What was there, in blocks of whole rows."""
        self.size = size
        self._file = _cut(self._path, size)
        with self._path.open("rb") as file:
            while block := file.read(self._row << 17):
                yield block

    def write(self, rows: bytes) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
        self._disk.write(self._file, rows)
        self.size += len(rows)

    def sync(self) -> None:
        if self._file is not None:
            self._disk.sync(self._file)

    def close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                self._file = None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cut(path: Path, size: int) -> BinaryIO:
    if _size(path) < size:
        raise FilterError(f"{path}: shorter than the state beside it says: remove the folder and begin again")
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _digest(file: BinaryIO) -> str:
    digest = sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """FilterError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return _digest(file)
    except OSError as error:
        raise FilterError(f"{path}: {error.strerror or error}") from error


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """The folder and its `.unfinished`, for one run at a time."""
    try:
        (out / UNFINISHED).mkdir(parents=True, exist_ok=True)
        with (out / UNFINISHED / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FilterError(f"{out}: another run writes there: wait for its end") from None
            yield
    except OSError as error:
        place = error.filename or out
        raise FilterError(f"{place}: {error.strerror or error}: run again to go on from here") from error


def occupied(out: Path) -> bool:
    """Has the folder anything that a run of ours does not go on from?"""
    if not out.exists():
        return False
    if not out.is_dir():
        raise FilterError(f"{out}: a file: name a folder to write")
    there = {path.name for path in out.iterdir()}
    return bool(there) and UNFINISHED not in there


def load_state(out: Path) -> dict[str, object] | None:
    """None when the run broke off before its first one."""
    path = out / UNFINISHED / _STATE
    if not path.exists():
        return None
    try:
        state = json.loads(path.read_bytes())
    except ValueError as error:
        raise FilterError(f"{path}: {error}: remove the folder and begin again") from error
    if not isinstance(state, dict):
        raise FilterError(f"{path}: not a state: remove the folder and begin again")
    return state


def save_state(out: Path, state: dict[str, object], disk: Disk) -> None:
    disk.save(out / UNFINISHED / _STATE, json.dumps(state).encode(), out / UNFINISHED)


def clear(out: Path) -> None:
    """The run is complete: nothing is left to go on from."""
    (out / UNFINISHED / _STATE).unlink()
    shutil.rmtree(out / UNFINISHED)
