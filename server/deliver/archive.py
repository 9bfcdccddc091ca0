"""An archive of a repository: fetched, checked, and unpacked member by member; links and devices are refused.

The size of an archive's content is limited before anything is written, and while it is read: a small file may
unpack to a disk full of zeros, or have a header that fills the memory.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Final, cast

from deliver.faults import BadInput, Corrupt, NoSuchRange, check_room
from deliver.fetch import fetch
from deliver.listing import NAME, is_safe
from deliver.progress import Progress
from deliver.source import Source, Transfer, shown, split_archive

MOST_MEMBERS: Final = 10_000
# Weights hardly compress. Below the floor, padding and repeated text can have any ratio, and do no harm.
MOST_RATIO: Final = 100
_FLOOR: Final = 64 << 20
# tarfile reads a header of extensions in one piece; content is read in smaller pieces.
_MOST_READ: Final = 4 << 20
_PIECE: Final = 1 << 20
_OPENED_BY: Final[Mapping[bytes, Callable[[Path, str], Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


def unpacked(
    url: str, sha256: str | None, staging: Path, attempts: int, say: Callable[[str], None]
) -> tuple[Path, int]:
    """The folder with the listing, in `staging`, and the number of bytes fetched. The archive's `sha256` is
    checked before anything is unpacked.

    A download that an earlier delivery began is resumed if it is of the same archive. Needs space for the
    archive and for its content. Raises Fault.
    """
    folder, name = split_archive(url)
    archive, origin, target = (staging / each for each in ("archive", "archive.origin", "unpacked"))
    staging.mkdir(exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    archive.unlink(missing_ok=True)
    progress = Progress(0, say)

    def begin(stream: Transfer, have: int) -> None:
        is_of = f"{shown(url)}\n{stream.version}\n"
        if have and not (stream.version and origin.is_file() and origin.read_text("utf-8") == is_of):
            raise NoSuchRange(f"{shown(url)}: has changed, or the source gives no version")
        origin.write_text(is_of, "utf-8")
        check_room(stream.size, staging)
        progress.expect(stream.size)

    fetch(Source(folder), name, None, archive, attempts, progress.add, begin)
    try:
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 not in {None, found}:
            raise Corrupt(f"{name}: its sha256 is {found}, --sha256 says {sha256}")
        unpack(archive, target, say)
    finally:
        archive.unlink()
    listings = sorted([*target.glob(NAME), *target.glob(f"*/{NAME}")])
    if not listings:
        raise BadInput(f"the archive has no {NAME}: run python -m deliver seal, and pack it again")
    return listings[0].parent, progress.fetched


def unpack(archive: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Unpacks into an empty folder. The archive contains the repository itself, or one folder with it.

    Raises BadInput for a member that leads out of the folder or is no file, and for an archive beyond the
    limits, NotWritten for too little space, Corrupt for a damaged archive.
    """
    with archive.open("rb") as file:
        begins = file.read(8)
    opened_by = next((one for magic, one in _OPENED_BY.items() if begins.startswith(magic)), Path.open)
    most = max(_FLOOR, MOST_RATIO * archive.stat().st_size)
    try:
        with (
            closing(opened_by(archive, "rb")) as content,
            tarfile.open(fileobj=cast(IO[bytes], _Bounded(content, most)), mode="r:") as members,
        ):
            _write(members, _checked(members), folder, say)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's; errors in the archive have no number
            raise
        raise Corrupt(f"{archive.name}: not a whole archive ({error})") from error


class _Bounded:
    """The content of an archive for tarfile: at most `most` bytes, and few per read."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._most = most
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_READ:
            raise BadInput(f"the archive has a header of {size:,} bytes, must be at most {_MOST_READ:,}")
        content = self._file.read(size)
        self._check(self._file.tell())
        return content

    def seek(self, place: int) -> int:
        self._check(place)
        return self._file.seek(place)

    def _check(self, place: int) -> None:
        if place > self._most:
            problem = f"unpacks to more than {self._most / 1e6:.0f} MB, {MOST_RATIO} times its own size"
            raise BadInput(f"the archive {problem}: is it a model repository?")


def _checked(members: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The files to write, after all names and sizes have been checked. Folders are made with their files, and
    hidden files are not part of a model.
    """
    wanted = []
    for count, member in enumerate(members, 1):
        if count > MOST_MEMBERS:
            raise BadInput(f"the archive has more than {MOST_MEMBERS:,} members: is it a model repository?")
        names = _name(member).split("/")
        hidden = any(name.startswith(".") and name not in {".", ".."} for name in names)
        if names in (["."], [""]) or (hidden and ".." not in names):
            continue
        if not is_safe(f"top/{_name(member)}"):
            raise BadInput(f"the archive's {member.name!r} leads out of the folder")
        if not (member.isfile() or member.isdir()):
            raise BadInput(
                f"the archive's {member.name!r} is a link or a device: pack with tar --dereference"
            )
        if member.isfile():
            wanted.append(member)
    return wanted


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./").rstrip("/")


def _write(
    archive: tarfile.TarFile, wanted: list[tarfile.TarInfo], folder: Path, say: Callable[[str], None]
) -> None:
    size = sum(member.size for member in wanted)
    check_room(size, folder.parent)
    progress = Progress(size, say, "unpacked")
    for member in wanted:
        target = folder / _name(member)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = archive.extractfile(member)
        assert content is not None  # a file
        with target.open("wb") as file:
            while piece := content.read(_PIECE):
                file.write(piece)
                progress.add(len(piece))
