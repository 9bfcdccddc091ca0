"""Where models come from: a folder, a web server or an object store, all asked the same two things."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from deliver.faults import BadInput, Fault

CHUNK = 1 << 20
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True, slots=True)
class Stream:
    """The bytes of a file from `offset` on, which is 0 where the source cannot begin elsewhere.

    `size` is how many come, None where the source does not say. Files of one `version` have the same content;
    it is empty where the source says nothing of it.
    """

    offset: int
    chunks: Iterator[bytes]
    size: int | None = None
    version: str = ""


class Source(Protocol):
    def open(self, path: str, offset: int) -> AbstractContextManager[Stream]:
        """The file at `path`. Raises Temporary for what may work next time, even midway, else Fault."""


@dataclass(frozen=True, slots=True)
class Folder:
    root: Path

    @contextmanager
    def open(self, path: str, offset: int) -> Iterator[Stream]:
        try:
            file = (self.root / path).open("rb")
        except OSError as error:
            raise Fault(f"{self.root / path}: {error.strerror}") from error
        with file:
            file.seek(offset)
            found = os.fstat(file.fileno())
            version = f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
            blocks = self._chunks(iter(lambda: file.read(CHUNK), b""), path)
            yield Stream(offset, blocks, max(0, found.st_size - offset), version)

    def _chunks(self, blocks: Iterator[bytes], path: str) -> Iterator[bytes]:
        try:
            yield from blocks
        except OSError as error:
            raise Fault(f"{self.root / path}: {error.strerror}") from error


def shown(url: str) -> str:
    """Without what may be secret: a user's name and password, the query of a signed URL."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def is_archive(url: str) -> bool:
    return urlsplit(url).path.endswith(ARCHIVES)


def split_archive(url: str) -> tuple[str, str]:
    """The URL of the folder an archive is in, and the archive's name."""
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    return parts._replace(path=folder).geturl(), unquote(name) if parts.scheme in {"http", "https"} else name


def open_source(url: str) -> Source:
    """The source of a URL, or of a folder's path. Raises BadInput for a scheme that is not known."""
    scheme = urlsplit(url).scheme
    if scheme in {"http", "https"}:
        from deliver.web import Web  # noqa: PLC0415  only what is used

        return Web(url)
    if scheme in {"s3", "gs"}:
        from deliver.objects import Objects  # noqa: PLC0415  an extra that a folder does not need

        return Objects.at(url)
    if scheme in {"", "file"}:
        return Folder(Path(unquote(urlsplit(url).path) if scheme else url))
    raise BadInput(f"{shown(url)}: must begin with file://, http://, https://, s3:// or gs://")
