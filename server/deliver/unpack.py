"""Archives: unpacked member by member, each name checked; links and devices are refused."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import IO

from deliver.faults import BadInput, Corrupt, writing
from deliver.listing import NAME, is_safe


def unpack(archive: Path, folder: Path) -> None:
    """Into an empty folder. An archive may hold the repository itself or one folder that holds it.

    Raises BadInput for a member that leads out of the folder or is no file, Corrupt for a damaged archive.
    """
    try:
        with tarfile.open(archive, "r:*") as members:
            for member in members:
                _member(members, member, folder)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise Corrupt(f"{archive.name}: not a whole archive ({error})") from error


def root(folder: Path) -> Path:
    """The unpacked folder that has the listing."""
    found = sorted([*folder.glob(NAME), *folder.glob(f"*/{NAME}")])
    if not found:
        raise BadInput(f"the archive has no {NAME}: python -m deliver seal, and pack it again")
    return found[0].parent


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = member.name.removeprefix("./").rstrip("/")
    hidden = any(part.startswith(".") and part not in {".", ".."} for part in name.split("/"))
    if name in {"", "."} or (hidden and ".." not in name.split("/")):
        return
    if not (is_safe(name) or is_safe(f"top/{name}")):
        raise BadInput(f"the archive's {member.name!r} leads out of the folder")
    if not (member.isfile() or member.isdir()):
        raise BadInput(f"the archive's {member.name!r} is a link or a device: pack with tar --dereference")
    if member.isfile() and (content := archive.extractfile(member)):
        _write(content, folder / name)


def _write(content: IO[bytes], target: Path) -> None:
    # Both sides are files here, but a damaged archive raises no OSError of the disk's kind.
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
