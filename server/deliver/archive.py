"""An archive of a repository: fetched, checked, and unpacked into a folder from which it is delivered."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from deliver.faults import Corrupt, NoSuchRange, check_room, writing
from deliver.fetch import PART, Retries, fetch
from deliver.places import Stream, open_source, shown, split_archive
from deliver.progress import Progress
from deliver.unpack import root, unpack

_ARCHIVE, _ORIGIN, _UNPACKED = "archive", "archive.origin", "unpacked"


def unpacked(
    url: str, sha256: str | None, staging: Path, retries: Retries, say: Callable[[str], None]
) -> Path:
    """The folder with the listing, in `staging`. Its `sha256` is checked before anything is unpacked.

    A part that an earlier delivery left is gone on with if it is of this very archive. Needs room for the
    archive and twice for what is in it. Raises Fault.
    """
    folder, name = split_archive(url)
    archive, target = staging / _ARCHIVE, staging / _UNPACKED
    with writing(staging):
        staging.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        archive.unlink(missing_ok=True)
    progress = Progress(0, say)
    begin = _Beginning(shown(url), staging, progress)
    fetch(open_source(folder), name, None, archive, retries, progress.add, begin)
    try:
        with archive.open("rb") as file:
            check(sha256, hashlib.file_digest(file, "sha256").hexdigest(), name)
        unpack(archive, target, say)
    finally:
        archive.unlink()
    return root(target)


def check(wanted: str | None, found: str, name: str) -> None:
    """Raises Corrupt."""
    if wanted is not None and wanted.lower() != found:
        raise Corrupt(f"{name}: its sha256 is {found}, --sha256 says {wanted.lower()}")


class _Beginning:
    """What is looked at each time that a source begins to send: whose bytes they are, and how many."""

    def __init__(self, url: str, staging: Path, progress: Progress) -> None:
        self._url = url
        self._origin = staging / _ORIGIN
        self._part = staging / (_ARCHIVE + PART)
        self._progress = progress

    def __call__(self, stream: Stream) -> None:
        """Raises NoSuchRange for the rest of another archive, NotWritten where there is too little room."""
        origin = f"{self._url}\n{stream.version}\n"
        if stream.offset:
            if not stream.version or not self._origin.is_file() or self._origin.read_text("utf-8") != origin:
                raise NoSuchRange(f"{self._url}: has changed, or says nothing of its version")
        else:
            with writing(self._origin):
                self._part.unlink(missing_ok=True)
                self._origin.write_text(origin, "utf-8")
        if stream.size is not None:
            check_room(stream.size, self._origin.parent)
            self._progress.expect(stream.size)
