"""A GGUF file inside an installed Python package. The package is never imported: only its files matter."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from build.checkpoint import Checkpoint
from build.errors import BadInput
from build.sources.gguf import open_gguf


def open_package(name: str, version: str | None) -> Checkpoint:
    """The checkpoint in the package; `version` must match where it is given."""
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
    return open_gguf(_only_gguf(distribution), "package", f"{name}=={distribution.version}")


def _only_gguf(distribution: metadata.Distribution) -> Path:
    found = [file for file in distribution.files or [] if file.suffix == ".gguf"]
    if len(found) != 1:
        name = distribution.metadata["Name"]
        raise BadInput(f"package {name} carries {len(found)} GGUF files, expected one")
    return Path(str(found[0].locate()))
