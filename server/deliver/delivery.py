"""A whole delivery: what is missing is gathered, then each model's folder is renamed into place."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deliver.archive import check, unpacked
from deliver.faults import BadInput, check_room, writing
from deliver.fetch import PART, Retries, fetch, read
from deliver.listing import MOST_BYTES, NAME, Listing, extras, parse, walk
from deliver.places import Folder, Source, is_archive, open_source, shown
from deliver.progress import Progress

STAGING = ".delivering"
LOCK = ".deliver.lock"
FILES, OLD = "files", "old"


@dataclass(frozen=True, slots=True)
class Order:
    """`sha256` is that of files.json, or of the archive: with it the source need not be trusted."""

    url: str
    destination: Path
    models: tuple[str, ...] = ()
    sha256: str | None = None
    jobs: int = 4
    retries: Retries = field(default_factory=Retries)


def deliver(order: Order, say: Callable[[str], None]) -> Listing:
    """What was asked for is in the destination when it returns. Raises Fault."""
    began = time.monotonic()
    with writing(order.destination):
        order.destination.mkdir(parents=True, exist_ok=True)
    with _locked(order.destination, say):
        source, listing = _opened(order, say)
        listing = listing.only(order.models)
        wanted = listing.of(
            [top for top in listing.tops if not _complete(listing.of([top]), order.destination)]
        )
        say(f"{len(listing.files)} files, {listing.size / 1e6:.0f} MB, from {shown(order.url)}")
        fetched = _gather(wanted, source, order, say) if wanted.tops else 0
        _put(wanted, listing, order.destination)
    say(f"delivered in {time.monotonic() - began:.1f} s; {fetched / 1e6:.0f} MB were fetched")
    return listing


@contextmanager
def _locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Several Pods may share a volume: the others wait, and find all of it there.

    NFS takes locks of files that are open for writing alone: a folder's would exclude nobody of another node.
    The file stays, since whoever waits for it holds it open.
    """
    with writing(folder / LOCK):
        handle = (folder / LOCK).open("a")
    with handle as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another delivery to {folder} is running: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _opened(order: Order, say: Callable[[str], None]) -> tuple[Source, Listing]:
    """For an archive the sha256 is that of the archive and has been checked."""
    packed = is_archive(order.url)
    staging = order.destination / STAGING
    source: Source = (
        Folder(unpacked(order.url, order.sha256, staging, order.retries, say))
        if packed
        else open_source(order.url)
    )
    content = read(source, NAME, MOST_BYTES, order.retries)
    if not packed:
        check(order.sha256, hashlib.sha256(content).hexdigest(), NAME)
    return source, parse(content)


def _complete(listing: Listing, folder: Path) -> bool:
    """Whether a model's folder is there, whole, right, and has nothing else in it."""
    files = all(entry.matches(folder / path) for path, entry in listing.files.items())
    return files and all((folder / path).is_dir() for path in listing.folders) and not extras(listing, folder)


def _gather(listing: Listing, source: Source, order: Order, say: Callable[[str], None]) -> int:
    """Every listed file in the staging folder; the bytes that were fetched."""
    staging = order.destination / STAGING / FILES
    with writing(staging):
        staging.mkdir(parents=True, exist_ok=True)
        _prune(listing, staging)
        for path in (*listing.folders, *(str(Path(path).parent) for path in listing.files)):
            (staging / path).mkdir(parents=True, exist_ok=True)
    missing = [path for path in listing.files if not _reused(path, listing, order.destination)]
    _check_room(missing, listing, order.destination)
    progress = Progress(sum(listing.files[path].size for path in missing), say)

    def one(path: str) -> None:
        fetch(source, path, listing.files[path], staging / path, order.retries, progress.add)

    pool = ThreadPoolExecutor(order.jobs)
    try:
        for _ in pool.map(one, sorted(missing, key=lambda path: -listing.files[path].size)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return progress.fetched


def _prune(listing: Listing, staging: Path) -> None:
    """Removes what an earlier delivery of something else left."""
    kept = {staging / path for path in listing.files} | {staging / (path + PART) for path in listing.files}
    for path in [path for path in walk(staging) if path.is_symlink() or not path.is_dir()]:
        if path not in kept:
            path.unlink()
    for path in reversed([path for path in walk(staging) if path.is_dir()]):
        if not any(path.iterdir()):
            path.rmdir()


def _reused(path: str, listing: Listing, destination: Path) -> bool:
    """Whether the file is gathered already, or is right where it stands and so need not be fetched."""
    staged, standing = destination / STAGING / FILES / path, destination / path
    if listing.files[path].matches(staged):
        return True
    if not listing.files[path].matches(standing):
        return False
    with writing(staged):
        staged.unlink(missing_ok=True)
        try:
            os.link(standing, staged)
        except OSError:  # a file system without links
            shutil.copyfile(standing, staged)
    return True


def _check_room(missing: list[str], listing: Listing, destination: Path) -> None:
    parts = [destination / STAGING / FILES / (path + PART) for path in missing]
    have = sum(part.stat().st_size for part in parts if part.exists())
    needed = sum(listing.files[path].size for path in missing) - have
    check_room(needed, destination)


def _put(wanted: Listing, listing: Listing, destination: Path) -> None:
    """Renames what was gathered into place, then says in files.json what is there."""
    staging = destination / STAGING
    content = _standing(destination).joined(listing).encode()
    with writing(destination):
        for top in wanted.tops:
            _swap(staging / FILES / top, destination / top, staging / OLD / top)
        if not (destination / NAME).is_file() or (destination / NAME).read_bytes() != content:
            new = destination / f".{NAME}"
            new.write_bytes(content)
            new.replace(destination / NAME)
        if staging.exists():
            shutil.rmtree(staging)


def _standing(destination: Path) -> Listing:
    """What an earlier delivery listed; none where that is not to be read any more."""
    try:
        return parse((destination / NAME).read_bytes())
    except (FileNotFoundError, BadInput):
        return Listing({})


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
