"""One file: fetched, resumed, retried, and checked before it gets its name."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from deliver.faults import BadInput, Corrupt, Fault, NoSuchRange, Temporary
from deliver.listing import Entry
from deliver.source import Source, Transfer

PART = ".part"
T = TypeVar("T")


def read(source: Source, path: str, most: int, attempts: int) -> bytes:
    """A small file. Raises BadInput when it is larger than `most` bytes."""

    def whole() -> bytes:
        stream = source.open(path, 0)
        if stream.size > most:
            raise BadInput(f"{path}: {stream.size} bytes, must be at most {most}")
        return b"".join(stream.chunks)

    return _tried(whole, attempts, lambda: 0)


def fetch(
    source: Source,
    path: str,
    wanted: Entry | None,
    target: Path,
    attempts: int,
    told: Callable[[int], None],
    begin: Callable[[Transfer, int], None] = lambda _stream, _have: None,
) -> None:
    """Fetches the file to `target`; without `wanted` its content is not checked. `told` is called with the
    size of each piece. `begin` is called with each answer of the source, before any of it is written, and
    with the number of bytes that were already there.

    Raises Corrupt for content that is wrong twice, Fault when the source does not deliver it.
    """
    part = target.with_name(target.name + PART)

    def attempt() -> None:
        if wanted is None or not part.exists() or _size(part) < wanted.size:
            _append(_rest(source, path, part, begin), path, wanted, part, told)
        if wanted is not None and not wanted.matches(part):
            raise Corrupt(f"{path}: not what its sha256 says, 2 times: the source is damaged")

    for last in (False, True):  # content that is wrong twice is wrong at the source
        try:
            _tried(attempt, attempts, lambda: _size(part))
            break
        except Corrupt:
            part.unlink()
            if last:
                raise
    part.replace(target)


def _tried(once: Callable[[], T], attempts: int, size: Callable[[], int]) -> T:
    """The result of `once`; gives up after so many attempts in a row in which `size` did not grow."""
    failures = 0
    while True:
        before = size()
        try:
            return once()
        except Temporary as fault:
            failures = 1 if size() > before else failures + 1
            if failures >= attempts:
                raise Fault(f"{fault}; given up after {failures} attempts") from fault
        # Half of the wait is random, so that many Pods do not ask at the same time.
        time.sleep(min(0.5 * 2.0 ** (failures - 1), 30) * random.uniform(0.5, 1.0))


def _rest(source: Source, path: str, part: Path, begin: Callable[[Transfer, int], None]) -> Iterator[bytes]:
    try:
        stream = source.open(path, have := _size(part))
        begin(stream, have)
    except NoSuchRange:
        part.unlink(missing_ok=True)
        stream = source.open(path, 0)
        begin(stream, 0)
    return stream.chunks


def _append(
    chunks: Iterable[bytes], path: str, wanted: Entry | None, part: Path, told: Callable[[int], None]
) -> None:
    with part.open("ab") as file:
        for chunk in chunks:
            file.write(chunk)
            told(len(chunk))
            if wanted is not None and file.tell() > wanted.size:
                raise Corrupt(f"{path}: longer than the {wanted.size} bytes that are listed")
        file.flush()
        os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
