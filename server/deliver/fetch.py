"""One file: fetched, resumed, tried again, and checked before it gets its name."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deliver.faults import BadInput, Corrupt, Fault, NoSuchRange, Temporary, writing
from deliver.listing import Entry
from deliver.places import Source, Stream

PART = ".part"
CORRUPT_TIMES = 2  # what is wrong twice is wrong at the source


@dataclass(frozen=True, slots=True)
class Retries:
    """`attempts` without a byte in between; the wait doubles from `first_s` to `most_s` seconds."""

    attempts: int = 5
    first_s: float = 0.5
    most_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int) -> None:
        """Up to half of it is left to chance, so that many Pods do not ask at once."""
        longest = min(self.first_s * 2.0 ** (failures - 1), self.most_s)
        self.sleep(longest * random.uniform(0.5, 1.0))


def fetch(
    source: Source,
    path: str,
    wanted: Entry | None,
    target: Path,
    retries: Retries,
    told: Callable[[int], None],
    begin: Callable[[Stream], None] = lambda _: None,
) -> None:
    """Puts the file at `target`; without `wanted` its content is not checked. `told` gets bytes as they come,
    and `begin` each answer of the source before its bytes are written.

    Raises Corrupt when it is wrong again and again, Fault when the source gives up, NotWritten.
    """
    part = target.with_name(target.name + PART)
    failures = corrupt = 0
    while True:
        before = _size(part)
        try:
            _attempt(source, path, wanted, part, told, begin)
            break
        except Temporary as fault:
            if isinstance(fault, NoSuchRange):
                part.unlink(missing_ok=True)
            failures = 1 if _size(part) > before else failures + 1
            if failures >= retries.attempts:
                raise Fault(f"{fault}; given up after {failures} attempts") from fault
        except Corrupt:
            corrupt += 1
            part.unlink(missing_ok=True)
            if corrupt == CORRUPT_TIMES:
                raise
        retries.wait(max(failures, 1))
    with writing(target):
        part.replace(target)


def read(source: Source, path: str, most: int, retries: Retries) -> bytes:
    """A small file. Raises BadInput when it is larger than `most` bytes."""
    for failures in range(1, retries.attempts + 1):
        try:
            return _read(source, path, most)
        except Temporary as fault:
            last = fault
            if failures < retries.attempts:
                retries.wait(failures)
    raise Fault(f"{last}; given up after {retries.attempts} attempts") from last


def _read(source: Source, path: str, most: int) -> bytes:
    content = b""
    with source.open(path, 0) as stream:
        for chunk in stream.chunks:
            content += chunk
            if len(content) > most:
                raise BadInput(f"{path}: more than {most} bytes")
    return content


def _attempt(
    source: Source,
    path: str,
    wanted: Entry | None,
    part: Path,
    told: Callable[[int], None],
    begin: Callable[[Stream], None],
) -> None:
    have = _size(part)
    if wanted is None or have < wanted.size or not part.exists():
        with source.open(path, have) as stream:
            begin(stream)
            _write(stream, path, wanted, part, told)
    if wanted is not None and not wanted.matches(part):
        raise Corrupt(f"{path}: not what its sha256 says, {CORRUPT_TIMES} times: the source is damaged")


def _write(stream: Stream, path: str, wanted: Entry | None, part: Path, told: Callable[[int], None]) -> None:
    with writing(part):
        part.touch()
        with part.open("r+b") as file:
            file.truncate(stream.offset)
            file.seek(stream.offset)
            for chunk in stream.chunks:
                file.write(chunk)
                told(len(chunk))
                if wanted is not None and file.tell() > wanted.size:
                    raise Corrupt(f"{path}: longer than the {wanted.size} bytes that are listed")
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
    if wanted is not None and size < wanted.size:
        raise Temporary(f"{path}: ended after {size} of {wanted.size} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
