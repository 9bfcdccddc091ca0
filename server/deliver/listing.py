"""files.json: every file of a model repository with its sha256 and size, and the folders that are empty.

Triton needs a numbered folder for an ensemble even though it is empty, and object stores keep no empty
folders: so they are listed. Hidden files are not part of a model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deliver.faults import BadInput

NAME = "files.json"
VERSION = 1
MOST_BYTES = 16 << 20
# The folders of a model that `build` made: the one that clients call is renamed into place last.
STEPS = ("_engine", "_tokenizer", "_detokenizer", "")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    sha256: str
    size: int  # bytes

    def matches(self, path: Path) -> bool:
        """Whether the file exists with this size and content."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != self.size:
            return False
        return sha256(path) == self.sha256


@dataclass(frozen=True, slots=True)
class Listing:
    """Paths are relative, with forward slashes, and begin with the folder of a model."""

    files: Mapping[str, Entry]
    folders: Collection[str] = ()

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files.values())

    @property
    def tops(self) -> list[str]:
        """The models' folders; those that clients call come last."""
        names = {path.partition("/")[0] for path in (*self.files, *self.folders)}
        return sorted(names, key=lambda name: (not name.endswith(STEPS[:-1]), name))

    def of(self, tops: Collection[str]) -> Listing:
        files = {path: entry for path, entry in self.files.items() if path.partition("/")[0] in tops}
        return Listing(files, [path for path in self.folders if path.partition("/")[0] in tops])

    def only(self, models: Collection[str]) -> Listing:
        """The part for these models, or everything if none is named. Raises BadInput for an unknown model."""
        if not models:
            return self
        tops = set(self.tops)
        if missing := sorted(set(models) - tops):
            known = ", ".join(name for name in self.tops if not name.endswith(STEPS[:-1])) or "none"
            raise BadInput(f"--model {missing[0]}: not in the source, which has {known}")
        return self.of({name + step for name in models for step in STEPS} & tops)

    def joined(self, newer: Listing) -> Listing:
        """This listing, with the model folders that `newer` has replaced by its own."""
        kept = self.of(set(self.tops) - set(newer.tops))
        return Listing({**kept.files, **newer.files}, [*kept.folders, *newer.folders])

    def encode(self) -> bytes:
        content = {
            "files_version": VERSION,
            "files": {path: {"sha256": e.sha256, "bytes": e.size} for path, e in self.files.items()},
            "folders": sorted(self.folders),
        }
        return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def parse(content: bytes) -> Listing:
    """Raises BadInput, which names the entry, for anything that could lead out of a folder."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{NAME}: not JSON ({error}): seal the repository again") from None
    if not isinstance(data, dict) or data.get("files_version") != VERSION:
        raise BadInput(f"{NAME}: not of version {VERSION}: seal the repository again")
    files, folders = data.get("files"), data.get("folders", [])
    if not isinstance(files, dict) or not isinstance(folders, list):
        raise BadInput(f"{NAME}: `files` or `folders` is missing: seal the repository again")
    found = Listing(
        {_path(path): _entry(path, entry) for path, entry in files.items()}, [_path(path) for path in folders]
    )
    for path in (*found.files, *found.folders):
        for above in map(str, PurePosixPath(path).parents):
            if above in found.files:
                raise BadInput(f"{NAME}: {above} is both a file and a folder")
    if both := set(found.files) & set(found.folders):
        raise BadInput(f"{NAME}: {min(both)} is both a file and a folder")
    return found


def is_safe(path: object) -> bool:
    """Whether it is relative, stays inside, names no hidden file and is at least two names deep."""
    if not isinstance(path, str) or not path.isprintable() or "\\" in path:
        return False
    names = path.split("/")
    return len(names) >= 2 and all(name and not name.startswith(".") and len(name) < 250 for name in names)


def _path(path: object) -> str:
    if not is_safe(path):
        raise BadInput(f"{NAME}: {path!r} is no path inside a model's folder")
    return str(path)


def _entry(path: str, data: Any) -> Entry:
    digest, size = (data.get("sha256"), data.get("bytes")) if isinstance(data, dict) else (None, None)
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise BadInput(f"{NAME}: {path}: sha256 {digest!r}, must be 64 hexadecimal digits")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadInput(f"{NAME}: {path}: bytes {size!r}, must be a whole number of at least 0")
    return Entry(digest, size)


def seal(repository: Path) -> Listing:
    """The listing of a folder. Raises BadInput for a link, which could lead elsewhere, and without a
    model.
    """
    files: dict[str, Entry] = {}
    folders: list[str] = []
    for path in walk(repository):
        name = path.relative_to(repository).as_posix()
        if path.is_symlink():
            raise BadInput(f"{path}: a link; put the file itself there")
        if path.is_file() and is_safe(name):
            files[name] = Entry(sha256(path), path.stat().st_size)
        elif path.is_dir() and is_safe(name) and not any(walk(path)):
            folders.append(name)
    if not files:
        raise BadInput(f"{repository}: has no model: run python -m build smollm2 --repository {repository}")
    return Listing(files, folders)


def walk(folder: Path) -> Iterator[Path]:
    """Everything below the folder, without hidden names and their contents; links are not followed."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith("."):
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from walk(path)


def problems(listing: Listing, folder: Path) -> list[str]:
    """Files that are missing, different, or not listed; one line each."""
    found = [f"{path}: missing" for path in listing.files if not (folder / path).is_file()]
    there = {path: entry for path, entry in listing.files.items() if (folder / path).is_file()}
    found += [
        f"{path}: not what its sha256 says" for path, e in there.items() if not e.matches(folder / path)
    ]
    found += [f"{path}/: missing" for path in listing.folders if not (folder / path).is_dir()]
    return sorted(found + [f"{path}: not listed" for path in extras(listing, folder)])


def extras(listing: Listing, folder: Path) -> list[str]:
    """Files in the listed models' folders that are not listed."""
    below = (path for top in listing.tops for path in walk(folder / top) if not path.is_dir())
    return [name for path in below if (name := path.relative_to(folder).as_posix()) not in listing.files]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
