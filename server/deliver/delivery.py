"""A whole delivery: missing files are fetched, then each model's folder is renamed into place."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deliver.archive import unpacked
from deliver.faults import BadInput, Corrupt, check_room, not_written
from deliver.fetch import PART, fetch, read
from deliver.listing import MOST_BYTES, NAME, Entry, Listing, extras, parse, walk
from deliver.progress import Progress
from deliver.source import Source, is_archive, shown

STAGING = ".delivering"
LOCK = ".deliver.lock"


@dataclass(frozen=True, slots=True)
class Order:
    """`sha256` is that of files.json, or of the archive: with it the source need not be trusted. `attempts`
    counts attempts in a row without progress.
    """

    url: str
    destination: Path
    models: tuple[str, ...] = ()
    sha256: str | None = None
    jobs: int = 4
    attempts: int = 5


def deliver(order: Order, say: Callable[[str], None]) -> None:
    """Delivers the order into the destination. Raises Fault."""
    began = time.monotonic()
    destination, staging = order.destination, order.destination / STAGING
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with _locked(destination, say):
            if is_archive(order.url):
                source = None
                staged, fetched = unpacked(order.url, order.sha256, staging, order.attempts, say)
                content = (staged / NAME).read_bytes()
            else:
                source, staged = Source(order.url), staging / "files"
                content = read(source, NAME, MOST_BYTES, order.attempts)
                found = hashlib.sha256(content).hexdigest()
                if order.sha256 not in {None, found}:
                    raise Corrupt(f"{NAME}: its sha256 is {found}, --sha256 says {order.sha256}")
            listing = parse(content).only(order.models)
            wanted = listing.of(
                [top for top in listing.tops if not _complete(listing.of([top]), destination)]
            )
            say(f"{len(listing.files)} files, {listing.size / 1e6:.0f} MB, from {shown(order.url)}")
            missing = _missing(wanted, staged, destination)
            if source:
                fetched = _fetch(missing, source, staged, order, say)
            elif missing:
                raise Corrupt(f"{min(missing)}: not what its sha256 in the archive's {NAME} says")
            _put(wanted, listing, staged, destination)
    except OSError as error:  # of the destination: errors of a source are faults already
        raise not_written(error, destination) from error
    say(f"delivered in {time.monotonic() - began:.1f} s; {fetched / 1e6:.0f} MB were fetched")


@contextmanager
def _locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Several Pods may share a volume: one delivers, the others wait and find everything done.

    NFS locks only files that are open for writing: the lock of a folder would not exclude other nodes. The
    file is not removed, since waiting processes have it open.
    """
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another delivery to {folder} is running: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _complete(listing: Listing, folder: Path) -> bool:
    """Whether a model's folder has all of its files, each with the right hash, and no others."""
    files = all(entry.matches(folder / path) for path, entry in listing.files.items())
    return files and all((folder / path).is_dir() for path in listing.folders) and not extras(listing, folder)


def _missing(listing: Listing, staged: Path, destination: Path) -> dict[str, Entry]:
    """The files that are neither complete in the folder `staged` nor in the destination. Files of the
    destination are linked into `staged`, and everything else there is removed.
    """
    kept = {staged / (path + end) for path in listing.files for end in ("", PART)}
    for found in reversed(list(walk(staged))):
        if found.is_dir() and not found.is_symlink():
            if not any(found.iterdir()):
                found.rmdir()
        elif found not in kept:
            found.unlink()
    for path in (*listing.folders, *(str(Path(path).parent) for path in listing.files)):
        (staged / path).mkdir(parents=True, exist_ok=True)
    return {
        path: entry
        for path, entry in listing.files.items()
        if not entry.matches(staged / path) and not _reused(entry, destination / path, staged / path)
    }


def _reused(entry: Entry, standing: Path, staged: Path) -> bool:
    if not entry.matches(standing):
        return False
    staged.unlink(missing_ok=True)
    try:
        os.link(standing, staged)
    except OSError:  # a file system without links
        shutil.copyfile(standing, staged)
    return True


def _fetch(
    missing: dict[str, Entry], source: Source, staged: Path, order: Order, say: Callable[[str], None]
) -> int:
    """Fetches the missing files; returns the number of bytes received."""
    total = sum(entry.size for entry in missing.values())
    parts = [staged / (path + PART) for path in missing]
    check_room(total - sum(part.stat().st_size for part in parts if part.exists()), order.destination)
    progress = Progress(total, say)

    def one(path: str) -> None:
        fetch(source, path, missing[path], staged / path, order.attempts, progress.add)

    pool = ThreadPoolExecutor(order.jobs)
    try:
        for _ in pool.map(one, sorted(missing, key=lambda path: -missing[path].size)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return progress.fetched


def _put(wanted: Listing, listing: Listing, staged: Path, destination: Path) -> None:
    """Renames the staged folders into place, then updates files.json."""
    staging = destination / STAGING
    for top in wanted.tops:
        _swap(staged / top, destination / top, staging / "old" / top)
    try:
        before = (destination / NAME).read_bytes()
        standing = parse(before)
    except (FileNotFoundError, BadInput):  # there is none, or it cannot be read any more
        before, standing = b"", Listing({})
    content = standing.joined(listing).encode()
    if content != before:
        new = destination / f".{NAME}"
        new.write_bytes(content)
        new.replace(destination / NAME)
    if staging.exists():
        shutil.rmtree(staging)


def _swap(staged: Path, target: Path, old: Path) -> None:
    shutil.rmtree(old, ignore_errors=True)
    old.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    try:
        staged.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
