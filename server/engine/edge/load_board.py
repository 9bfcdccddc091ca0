"""Which of an engine's instances takes the next request: one with the fewest.

Triton gives requests to the free instances, one after the other, and an engine is free again at once, however
many requests it has. That is not balanced: of two instances, one was seen with six requests and the other
with one. So an instance returns to Triton only when no other has fewer; meanwhile Triton uses the others. An
instance that has returned takes the next request even if another has become idle in between: at most one.

Instances are processes. They share a file of records, each with the number of requests that its instance has.
A record is valid while its process holds a lock on it; the kernel releases the lock when the process ends.

After a reload the old instances stay on the board until their last request has ended. They take no more
requests, so they must not count: an instance joins with its first request, and only the instances that joined
last count, as many as the model has. No instance waits for a dead one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Final

_RECORD: Final = struct.Struct("=qq")  # (ticket, requests); the first record is (tickets given, 0)
_RECORDS: Final = 256
_POLL_SECONDS: Final = 0.002
_FLOCK: Final = struct.Struct("hhqqi")  # type, whence, start, length, process


class LoadBoard:
    """`instances` is how many the model has, `load` counts the requests that this one has now."""

    def __init__(self, path: Path, instances: int, load: Callable[[], int]) -> None:
        self._instances = instances
        self._load = load
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, _RECORD.size * _RECORDS)
        self._map = mmap.mmap(self._file, _RECORD.size * _RECORDS)
        self._ticket = 0
        self._place = 0

    def publish(self) -> None:
        """Tell the others, once this instance has had a request."""
        if self._ticket:
            self._write(self._place, self._ticket, self._load())

    def wait_turn(self) -> None:
        """Called after a request was taken; returns when no other instance has fewer."""
        if not self._ticket:
            self._join()
        self.publish()
        while not is_turn(self._ticket, self._load(), self._others(), self._instances):
            time.sleep(_POLL_SECONDS)
            self.publish()

    def close(self) -> None:
        """Remove this instance from the board."""
        self._map.close()
        os.close(self._file)

    def _join(self) -> None:
        with self._locked(0):
            given, _ = _RECORD.unpack_from(self._map, 0)
            self._write(0, given + 1, 0)
            self._place = next(place for place in range(1, _RECORDS) if self._lock(place, fcntl.F_WRLCK))
            self._ticket = given + 1

    def _others(self) -> list[tuple[int, int | None]]:
        """(ticket, requests) of the other instances on the board; None for a dead one."""
        records = enumerate(_RECORD.iter_unpack(self._map[:]))
        return [
            (ticket, load if self._is_held(place) else None)
            for place, (ticket, load) in records
            if ticket and place not in {0, self._place}
        ]

    def _write(self, place: int, ticket: int, load: int) -> None:
        _RECORD.pack_into(self._map, place * _RECORD.size, ticket, load)

    @contextmanager
    def _locked(self, place: int) -> Iterator[None]:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK, place))
        try:
            yield
        finally:
            self._lock(place, fcntl.F_UNLCK)

    def _lock(self, place: int, kind: int) -> bool:
        """False when another instance holds it."""
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(kind, place))
        except BlockingIOError:
            return False
        return True

    def _is_held(self, place: int) -> bool:
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, place))
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def is_turn(ticket: int, load: int, others: Iterable[tuple[int, int | None]], instances: int) -> bool:
    """Whether none of the `instances` that joined last has fewer requests; an older instance need not wait.

    `others` are (ticket, requests), or None for a dead one.
    """
    members = dict(sorted([(ticket, load), *others], key=itemgetter(0), reverse=True)[:instances])
    return ticket not in members or all(other is None or load <= other for other in members.values())


def _flock(kind: int, place: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, place * _RECORD.size, _RECORD.size, 0)
