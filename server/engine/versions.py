"""The versions of an engine on disk, as the tokenizer and detokenizer steps know them.

Triton replaces a version of NAME_engine by a new one while requests run, and the old one finishes those that
it has. The tokenizer and the detokenizer step keep running meanwhile, and must match whichever engine a
request reaches. This module tells them: it reads NAME_engine again when that folder changes, and opens once
what two versions have in common.

Invariants
- what was opened stays: its engine may still serve after its folder is removed, or after the folder with all
  versions is lost, such as a volume that is no longer mounted; that is reported once;
- a version that cannot be read is reported and left out, since its engine does not load either.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from engine.errors import ArtifactError
from engine.manifest import Manifest, read_manifest

T = TypeVar("T")
# A change right after a read may leave the folder's time stamp the same, so a recent one is not trusted.
YOUNG_NS = 1_000_000_000
KEY_LENGTH = 16


def request_key(manifest: Manifest) -> str:
    """Equal keys, equal requests: a digest of all that turns a client's inputs into a prompt and sampling."""
    names = ("tokenizer.json", "chat_template.jinja")
    files = [manifest.files[name]["sha256"] if name in manifest.files else None for name in names]
    sizes = [manifest.shape.vocab_size, manifest.shape.source_vocab_size]
    read = [manifest.task, manifest.prefix, dict(manifest.generation), dict(manifest.special), files, sizes]
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


def table_key(manifest: Manifest) -> str:
    """Equal keys, equal bytes for every token id."""
    return str(manifest.files["tokens.bin"]["sha256"])[:KEY_LENGTH] if "tokens.bin" in manifest.files else ""


class Versions(Generic[T]):
    """What `open_version` makes of the versions in `folder`, by what `key` makes of them.

    Raises ArtifactError when there is none to begin with. Not for several threads at a time.
    """

    def __init__(
        self,
        folder: Path,
        key: Callable[[Manifest], str],
        open_version: Callable[[Manifest], T],
        report: Callable[[BaseException], None],
    ) -> None:
        self._folder = folder
        self._key = key
        self._open = open_version
        self._report = report
        self._opened: dict[str, T] = {}
        self._seen_ns = 0
        self._lost = False
        faults = list(self._look())
        if not self._opened:
            raise faults[0] if faults else ArtifactError("manifest", f"no version in {folder.name}")
        for fault in faults:
            report(fault)

    def all(self) -> dict[str, T]:
        """The versions on disk, the newest first, then those that were there before."""
        try:
            changed_ns = self._folder.stat().st_mtime_ns
            changed = changed_ns != self._seen_ns or time.time_ns() - changed_ns < YOUNG_NS
            faults: list[BaseException] = list(self._look()) if changed else []
            self._lost = False
        except OSError as error:
            problem = f"cannot read {self._folder} ({error.strerror}); opened versions keep serving"
            faults = [] if self._lost else [ArtifactError("manifest", problem)]
            self._lost = True
        for fault in faults:
            self._report(fault)
        return self._opened

    def find(self, key: str) -> T:
        """Raises KeyError for a version that is not here and never was."""
        return self._opened[key] if key in self._opened else self.all()[key]

    def _look(self) -> Iterator[ArtifactError]:
        """Yields the errors of unreadable versions. Raises OSError if the folder cannot be read."""
        seen_ns, versions = self._folder.stat().st_mtime_ns, _newest_first(self._folder)
        self._seen_ns = seen_ns
        found: dict[str, T] = {}
        for version in versions:
            try:
                manifest = read_manifest(version)
                key = self._key(manifest)
                if key not in found:
                    found[key] = self._opened[key] if key in self._opened else self._open(manifest)
            except ArtifactError as error:
                yield error
        self._opened = found | {key: kept for key, kept in self._opened.items() if key not in found}


def _newest_first(folder: Path) -> list[Path]:
    """Version folders; those without a manifest are placeholders or not whole yet."""
    versions = [path for path in folder.iterdir() if path.name.isdecimal()]
    built = [path for path in versions if (path / "manifest.json").is_file()]
    return sorted(built or versions, key=lambda path: int(path.name), reverse=True)
