"""An engine on disk: its manifest, checked before anything is loaded, and its versions.

`build` writes the folder NAME_engine/VERSION: model.onnx, encoder.onnx where there is an encoder, their
weights, tokenizer.json, tokens.bin, perhaps chat_template.jinja, and manifest.json, which names the sha256 of
every other file (contract/manifest.schema.json).

Triton replaces a version of NAME_engine by a new one while requests run, and the old one finishes those that
it has. The tokenizer and the detokenizer step keep running meanwhile, and must match whichever engine a
request reaches. `Versions` tells them: it reads NAME_engine again when that folder changes, and opens once
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from engine.core.errors import ArtifactError, shown

MANIFEST_VERSION: Final = 2


class Architecture(StrEnum):
    """An encoder-decoder reads a source once; its decoder attends to the source and to its own tokens."""

    DECODER = "decoder"
    ENCODER_DECODER = "encoder_decoder"


class KvDtype(StrEnum):
    """The type of the keys and values that the graph reads and writes."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"

    @property
    def size(self) -> int:
        return 4 if self is KvDtype.FLOAT32 else 2


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the KV cache and the sampler need to know of the graph.

    `max_source_positions` is 0 for a decoder. The cross cache has as many layers and heads as the decoder's
    own. An encoder may read another vocabulary.
    """

    layers: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    architecture: Architecture = Architecture.DECODER
    max_source_positions: int = 0
    kv_dtype: KvDtype = KvDtype.FLOAT32
    source_vocab_size: int = 0

    @property
    def has_encoder(self) -> bool:
        return self.architecture is Architecture.ENCODER_DECODER

    def kv_bytes(self, slots: int, positions: int, source: int = 0) -> int:
        """Size of the keys and values of all layers; `source` counts the positions of the cross cache."""
        each = 2 * self.kv_dtype.size * self.layers * self.kv_heads * self.head_dim
        return each * slots * (positions + source)


@dataclass(frozen=True, slots=True)
class Manifest:
    """`prefix` is put before `text_input`. `generation` has the sampling fields that the model sets.
    `special` are the tokens that a chat template may name. `leading_space` says that tokens.bin spells an
    answer with a space before it.
    `engine` says what a TensorRT plan was compiled for, and is empty for other dialects.
    """

    folder: Path
    name: str
    task: str
    prefix: str
    dialect: str
    precision: str
    licence: str | None
    size_bytes: int
    shape: ModelShape
    generation: Mapping[str, Any]
    eos: frozenset[int]
    special: Mapping[str, str]
    leading_space: bool
    files: Mapping[str, Mapping[str, Any]]
    model: Mapping[str, Any]
    quality: Mapping[str, Any]
    engine: Mapping[str, Any]

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
    generation = {name: value for name, value in data["generation"].items() if value is not None}
    eos = frozenset(generation.pop("eos_token_ids"))
    return Manifest(
        folder=folder,
        shape=_shape(data["model"]),
        generation=generation,
        eos=eos,
        licence=data["source"]["licence"],
        special=_special(data["tokenizer"]),
        leading_space=bool(data["tokenizer"].get("leading_space", False)),
        files={name: {key: file[key] for key in ("sha256", "bytes")} for name, file in data["files"].items()},
        model=dict(data["model"]),
        quality=dict(data["quality"]),
        engine=dict(data.get("engine", {})),
        **{name: data[name] for name in ("name", "task", "prefix", "dialect", "precision", "size_bytes")},
    )


def _special(tokenizer: Mapping[str, Any]) -> dict[str, str]:
    """Older manifests list only two special tokens, with null for one that the model lacks."""
    listed = tokenizer.get("special_tokens")
    if listed is None:
        listed = {name: tokenizer[name] for name in ("bos_token", "eos_token")}
    return {str(name): token for name, token in listed.items() if token is not None}


def _shape(model: Mapping[str, Any]) -> ModelShape:
    numbers = ("layers", "kv_heads", "head_dim", "vocab_size", "max_positions", "max_source_positions")
    return ModelShape(
        architecture=Architecture(model["architecture"]),
        kv_dtype=KvDtype(model["kv_dtype"]),
        source_vocab_size=model.get("source_vocab_size", model["vocab_size"]),
        **{name: model[name] for name in numbers},
    )


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
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted["sha256"]:
            raise ArtifactError(name, "its sha256 is not the manifest's; build the model again")


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
