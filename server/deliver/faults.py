"""What a delivery can end with. Every message is one line and names the next step where there is one."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Fault(Exception):
    """The source did not give what was asked for, for good."""

    exit_code = 1


class Temporary(Fault):
    """The source may give it at the next attempt."""


class NoSuchRange(Temporary):
    """What is here already is as long as the source's file, or longer: to be fetched from its beginning."""


class BadInput(Fault):
    """The command is at fault, or the source is no sealed repository."""

    exit_code = 2


class Corrupt(Fault):
    """Content is not what its hash says."""

    exit_code = 3


class NotWritten(Fault):
    """The destination is full or may not be written to."""

    exit_code = 4


def check_room(needed: int, folder: Path) -> None:
    """Raises NotWritten when the file system of the folder has fewer bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        problem = f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free: give the volume more room"
        raise NotWritten(f"{folder}: {problem}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tells errors of the destination from those of the source."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL:
            raise NotWritten(
                f"{where}: no space left ({error.strerror}): give the volume more room"
            ) from error
        problem = f"{where}: cannot be written ({error.strerror}): who owns the volume (fsGroup)?"
        raise NotWritten(problem) from error
