"""The errors of a delivery. Every message is one line and names the next step, if there is one."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Fault(Exception):
    """The source did not deliver, and further attempts would not help."""

    exit_code = 1


class Temporary(Fault):
    """The next attempt may succeed."""


class NoSuchRange(Temporary):
    """The part that was already fetched cannot be resumed: the file must be fetched from the beginning."""


class BadInput(Fault):
    """The command is wrong, or the source is no sealed repository."""

    exit_code = 2


class Corrupt(Fault):
    """Content does not match its hash."""

    exit_code = 3


class NotWritten(Fault):
    """The destination is full or may not be written to."""

    exit_code = 4


def not_written(error: OSError, folder: Path) -> NotWritten:
    where = error.filename or folder
    if error.errno in _FULL:
        return NotWritten(f"{where}: no space left ({error.strerror}): give the volume more room")
    return NotWritten(f"{where}: cannot be written ({error.strerror}): who owns the volume (fsGroup)?")


def check_room(needed: int, folder: Path) -> None:
    """Raises NotWritten when the file system of the folder has fewer bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        problem = f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free: give the volume more room"
        raise NotWritten(f"{folder}: {problem}")
