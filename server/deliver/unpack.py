"""Archives: unpacked member by member, each name checked; links and devices are refused.

What an archive takes is bounded before anything is written, and while it is read: a small file may say that
it unpacks to a disk full of zeros, or have a header that fills the memory.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final, cast

from deliver.faults import BadInput, Corrupt, check_room, writing
from deliver.listing import NAME, is_safe
from deliver.progress import Progress

MOST_MEMBERS: Final = 10_000
# Weights hardly shrink. Below the floor padding and repeated text make any ratio possible, and no harm.
MOST_RATIO: Final = 100
_FLOOR: Final = 64 << 20
# tarfile reads a header of extensions whole; content is read by less.
_MOST_READ: Final = 4 << 20
_PIECE: Final = 1 << 20
_OPENED_BY: Final[Mapping[bytes, Callable[[Path, str], Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


def unpack(archive: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Into an empty folder. An archive may hold the repository itself or one folder that holds it.

    Raises BadInput for a member that leads out of the folder or is no file, and for more than is allowed,
    NotWritten where there is too little room, Corrupt for a damaged archive.
    """
    try:
        with _opened(archive) as file, tarfile.open(fileobj=file, mode="r:") as members:
            wanted = _checked(members)
            size, packed = sum(member.size for member in wanted), archive.stat().st_size
            # Once more while the files are gathered; the archive is gone by then.
            check_room(max(size, 2 * size - packed), archive.parent)
            progress = Progress(size, say, "unpacked")
            for member in wanted:
                _write(members, member, folder, progress)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise Corrupt(f"{archive.name}: not a whole archive ({error})") from error


def root(folder: Path) -> Path:
    """The unpacked folder that has the listing."""
    found = sorted([*folder.glob(NAME), *folder.glob(f"*/{NAME}")])
    if not found:
        raise BadInput(f"the archive has no {NAME}: python -m deliver seal, and pack it again")
    return found[0].parent


class _Bounded:
    """The content of an archive for tarfile: `most` bytes of it, and few at once."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._most = most

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_READ:
            raise BadInput(f"the archive has a header of {size:,} bytes, must be at most {_MOST_READ:,}")
        content = self._file.read(size)
        self._check(self._file.tell())
        return content

    def seek(self, place: int, whence: int = 0) -> int:
        assert whence == 0
        self._check(place)
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> IO[bytes]:
        return cast(IO[bytes], self)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, place: int) -> None:
        if place > self._most:
            problem = f"unpacks to more than {self._most / 1e6:.0f} MB, {MOST_RATIO} times its own size"
            raise BadInput(f"the archive {problem}: is it a model repository?")


def _opened(archive: Path) -> _Bounded:
    with archive.open("rb") as file:
        begin = file.read(8)
    opened_by = next((one for magic, one in _OPENED_BY.items() if begin.startswith(magic)), Path.open)
    most = max(_FLOOR, MOST_RATIO * archive.stat().st_size)
    return _Bounded(cast(IO[bytes], opened_by(archive, "rb")), most)


def _checked(members: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """The files that are to be written, once all names and sizes are known to be right."""
    wanted = []
    for count, member in enumerate(members, 1):
        if count > MOST_MEMBERS:
            raise BadInput(f"the archive has more than {MOST_MEMBERS:,} members: is it a model repository?")
        if _is_wanted(member):
            wanted.append(member)
    return wanted


def _is_wanted(member: tarfile.TarInfo) -> bool:
    """False for a folder, and for hidden files, which are no part of a model."""
    name = _name(member)
    hidden = any(part.startswith(".") and part not in {".", ".."} for part in name.split("/"))
    if name in {"", "."} or (hidden and ".." not in name.split("/")):
        return False
    if not (is_safe(name) or is_safe(f"top/{name}")):
        raise BadInput(f"the archive's {member.name!r} leads out of the folder")
    if not (member.isfile() or member.isdir()):
        raise BadInput(f"the archive's {member.name!r} is a link or a device: pack with tar --dereference")
    return member.isfile()


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./").rstrip("/")


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, progress: Progress) -> None:
    content, target = archive.extractfile(member), folder / _name(member)
    assert content is not None  # a file
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("wb")
    with file:
        # What reading raises is the archive's fault, what writing raises is the disk's.
        while piece := content.read(_PIECE):
            with writing(target):
                file.write(piece)
                file.flush()
            progress.add(len(piece))
