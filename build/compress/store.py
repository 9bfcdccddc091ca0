"""Checkpoints of a chain on disk, each under the hash of all that made it.

A checkpoint is a folder that appears with one rename. It holds the weights that its step changed; the others
are read where they are: in the folder of an earlier step, or in the source.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from build.checkpoint import Checkpoint, TokenizerFiles, Weight, sha256
from build.errors import BuildError
from build.quantise import Blocks, Floats, Rows

Json = dict[str, Any]
_ROOT, _ROWS = "root", "rows"
_WEIGHTS, _INDEX, _RECORD = "weights.safetensors", "checkpoint.json", "record.json"
_TOKENIZER, _TARGET, _TEMPLATE = "tokenizer.json", "target_tokenizer.json", "chat_template.jinja"


@dataclass(frozen=True)
class Kept:
    """A checkpoint under its key; `places` say in which folder each weight lies, "root" for the source."""

    key: str
    checkpoint: Checkpoint
    places: Mapping[str, str]


def root(checkpoint: Checkpoint) -> Kept:
    """The source itself: its files are its key."""
    return Kept(_ROOT, checkpoint, dict.fromkeys(checkpoint.weights, _ROOT))


@dataclass(frozen=True)
class Store:
    """The folders under `folder`, by key; `source` is what the chain began with."""

    folder: Path
    source: Checkpoint

    def holds(self, key: str) -> bool:
        """Whether the step has been done, without reading what it left, which `find` does."""
        return (self.folder / key / _INDEX).is_file()

    def find(self, key: str) -> Kept | None:
        """None where the step has not been done, or where what it left is damaged."""
        place = self.folder / key
        try:
            index = json.loads((place / _INDEX).read_text(encoding="utf-8"))
            if sha256(place / _WEIGHTS) != index["sha256"]:
                return None
            return self._opened(key, index)
        except (OSError, ValueError, KeyError):
            return None

    def keep(self, key: str, made: Checkpoint, parent: Kept) -> Kept:
        """Writes what the step changed, and returns the checkpoint as it reads it back."""
        staging, place = self.folder / f".{key}.{os.getpid()}", self.folder / key
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            before = parent.checkpoint.weights
            places = {
                name: parent.places[name] if before.get(name) is weight else key
                for name, weight in made.weights.items()
            }
            tensors: dict[str, NDArray[Any]] = {}
            for name in (name for name, where in places.items() if where == key):
                tensors |= _tensors(name, made.weights[name])
            save_file(tensors, staging / _WEIGHTS)
            _write_files(staging, made.tokenizer)
            index = _index(made, places) | {"sha256": sha256(staging / _WEIGHTS)}
            (staging / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            staging.rename(place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        found = self.find(key)
        if found is None:
            raise BuildError(f"{place}: cannot be read back: is the disk damaged?")
        return found

    def record(self, key: str) -> Json | None:
        """What was measured of the step."""
        try:
            found: Json = json.loads((self.folder / key / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def write_record(self, key: str, record: Json) -> None:
        part = self.folder / key / f".{_RECORD}"
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        part.replace(self.folder / key / _RECORD)

    def _opened(self, key: str, index: Json) -> Kept:
        weights = {name: self._weight(name, **entry) for name, entry in index["weights"].items()}
        if not all(weights.values()):
            raise KeyError(key)
        place = self.folder / key
        checkpoint = replace(
            self.source,
            config=index["config"],
            weights={name: weight for name, weight in weights.items() if weight},
            generation=index["generation"],
            tokenizer=_read_files(place, index["special"]),
        )
        return Kept(key, checkpoint, {name: entry["place"] for name, entry in index["weights"].items()})

    def _weight(self, name: str, place: str, shape: list[int], form: str | None) -> Weight | None:
        if place == _ROOT:
            return self.source.weights.get(name)
        path = self.folder / place / _WEIGHTS
        if not path.is_file():
            return None
        if form is None:
            return Weight(tuple(shape), partial(_read, path, name))
        if form == _ROWS:
            rows = partial(_read_rows, path, name)
            return Weight(tuple(shape), partial(_dequantised, rows), read_rows=rows)
        blocks = partial(_read_blocks, path, name, int(form), shape[-1])
        return Weight(tuple(shape), partial(_dequantised, blocks), blocks)


def _tensors(name: str, weight: Weight) -> dict[str, NDArray[Any]]:
    if weight.read_rows is not None:
        rows = weight.read_rows()
        return {f"{name}:levels": rows.levels, f"{name}:scales": rows.scales}
    if weight.read_blocks is None:
        return {name: np.ascontiguousarray(weight.read())}
    blocks = weight.read_blocks()
    found: dict[str, NDArray[Any]] = {f"{name}:levels": blocks.packed(), f"{name}:scales": blocks.scales}
    if blocks.offsets is not None:
        found[f"{name}:offsets"] = blocks.offsets
    return found


def _index(made: Checkpoint, places: Mapping[str, str]) -> Json:
    weights = {
        name: {
            "place": places[name],
            "shape": list(weight.shape),
            "form": _form(weight) if places[name] != _ROOT else None,
        }
        for name, weight in made.weights.items()
    }
    return {
        "config": dict(made.config),
        "generation": dict(made.generation),
        "special": dict(made.tokenizer.special),
        "origin": asdict(made.origin),
        "weights": weights,
    }


def _form(weight: Weight) -> str | None:
    """How the file holds a weight: in fp32 (None), in blocks of 4 or 8 bits, or in rows."""
    if weight.read_rows is not None:
        return _ROWS
    return None if weight.read_blocks is None else str(weight.read_blocks().bits)


def _write_files(folder: Path, files: TokenizerFiles) -> None:
    (folder / _TOKENIZER).write_bytes(files.json)
    if files.target is not None:
        (folder / _TARGET).write_bytes(files.target)
    if files.chat_template is not None:
        (folder / _TEMPLATE).write_text(files.chat_template, encoding="utf-8")


def _read_files(folder: Path, special: Mapping[str, str]) -> TokenizerFiles:
    target, template = folder / _TARGET, folder / _TEMPLATE
    return TokenizerFiles(
        json=(folder / _TOKENIZER).read_bytes(),
        chat_template=template.read_text(encoding="utf-8") if template.is_file() else None,
        special=special,
        target=target.read_bytes() if target.is_file() else None,
    )


def _read(path: Path, name: str) -> NDArray[Any]:
    try:
        with safe_open(path, framework="np") as file:
            found: NDArray[Any] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise BuildError(f"{path}: {name}: {error}: remove that folder; the step is done again") from error
    return found


def _read_blocks(path: Path, name: str, bits: int, columns: int) -> Blocks:
    packed = _read(path, f"{name}:levels")
    levels = packed if bits == 8 else _unpacked(packed)
    with safe_open(path, framework="np") as file:
        offsets = f"{name}:offsets" in file.keys()  # noqa: SIM118 (no dict: it does not iterate)
    shift = _read(path, f"{name}:offsets") if offsets else None
    return Blocks(bits, columns, levels, _read(path, f"{name}:scales"), shift)


def _read_rows(path: Path, name: str) -> Rows:
    return Rows(_read(path, f"{name}:levels"), _read(path, f"{name}:scales"))


def _unpacked(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    levels = np.empty((*packed.shape[:2], 2 * packed.shape[2]), np.uint8)
    levels[:, :, 0::2], levels[:, :, 1::2] = packed & np.uint8(15), packed >> np.uint8(4)
    return levels


def _dequantised(read: Callable[[], Blocks | Rows]) -> Floats:
    return read().dequantise()
