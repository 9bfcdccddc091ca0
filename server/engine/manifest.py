"""The artifact on disk: its manifest, checked before anything is loaded.

`build` writes the folder NAME_engine/VERSION: model.onnx and its weights, tokenizer.json, tokens.bin, perhaps
chat_template.jinja, and manifest.json, which names the sha256 of every other file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.errors import ArtifactError, shown

MANIFEST_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the KV cache and the sampler need to know of the graph."""

    layers: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int

    def kv_bytes(self, slots: int, positions: int) -> int:
        """Size of the float32 keys and values of all layers."""
        return 2 * 4 * self.layers * self.kv_heads * self.head_dim * slots * positions


@dataclass(frozen=True, slots=True)
class Manifest:
    folder: Path
    name: str
    task: str
    precision: str
    shape: ModelShape
    generation: Mapping[str, Any]
    eos: frozenset[int]
    special: Mapping[str, str | None]
    files: Mapping[str, Mapping[str, Any]]

    def path(self, file: str) -> Path:
        return self.folder / file


def read_manifest(folder: Path) -> Manifest:
    """Raises ArtifactError when the manifest is missing, not JSON, incomplete or of another version."""
    path = folder / "manifest.json"
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        problem = f"cannot read {path.name} ({error.strerror}); build the model first: make engines"
        raise ArtifactError("manifest", problem) from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError("manifest", f"not JSON ({error}); build the model again") from None
    version = data.get("manifest_version") if isinstance(data, dict) else None
    if version != MANIFEST_VERSION:
        problem = (
            f"version {shown(version)}, this server reads version {MANIFEST_VERSION}; build the model again"
        )
        raise ArtifactError("manifest", problem)
    try:
        return _manifest(folder, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError("manifest", f"incomplete: {error!r}; build the model again") from None


def _manifest(folder: Path, data: dict[str, Any]) -> Manifest:
    generation = dict(data["generation"])
    eos = frozenset(generation.pop("eos_token_ids"))
    shape = ModelShape(**{field: data["model"][field] for field in ModelShape.__slots__})
    files = {name: {key: file[key] for key in ("sha256", "bytes")} for name, file in data["files"].items()}
    return Manifest(
        folder, data["name"], data["task"], data["precision"], shape, generation, eos,
        dict(data["tokenizer"]), files,
    )  # fmt: skip


def verify_files(manifest: Manifest, names: tuple[str, ...] | None = None) -> None:
    """Raises ArtifactError for a file that is missing, cut short or changed since the build."""
    for name in names or tuple(manifest.files):
        wanted = manifest.files.get(name)
        path = manifest.path(name)
        if wanted is None or not path.is_file():
            raise ArtifactError(name, "missing; build the model again")
        size = path.stat().st_size
        if size != wanted["bytes"]:
            raise ArtifactError(
                name, f"{size} bytes, the manifest says {wanted['bytes']}; build the model again"
            )
        if _sha256(path) != wanted["sha256"]:
            raise ArtifactError(name, "its sha256 is not the manifest's; build the model again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
