"""A checkpoint as every source presents it: Hugging Face names and layout, read lazily.

Invariants
- weights are named and shaped as `transformers` saves them ([rows out, columns in] for a linear map);
- nothing is read until `Weight.read()` is called, and nothing is cached: a 135M model is 0.5 GB in fp32;
- passes take a checkpoint and return another: they never load, save or print.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build.errors import BadInput, Unsupported
from build.quantise import Blocks, Floats, Rows

_SHOWN = 3


@dataclass(frozen=True)
class Weight:
    """One tensor: its fp32 values, and the blocks or rows that it was rounded to where engines can take them
    over.
    """

    shape: tuple[int, ...]
    read: Callable[[], Floats]
    read_blocks: Callable[[], Blocks] | None = None
    read_rows: Callable[[], Rows] | None = None


@dataclass(frozen=True)
class TokenizerFiles:
    """`json` is a tokenizer.json of the `tokenizers` library, `target` that of answers where it differs.

    `special` are the tokens that chat templates may name, such as `bos_token`.
    """

    json: bytes
    chat_template: str | None
    special: Mapping[str, str]
    target: bytes | None = None


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint came from; `files` maps each file read to its sha256."""

    kind: str
    id: str
    revision: str | None
    licence: str | None
    files: Mapping[str, str]


def sha256(path: Path) -> str:
    """The hexadecimal digest of a file, as origins and manifests record it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """`config` is a Hugging Face config.json, `generation` a generation_config.json (may be empty)."""

    config: Mapping[str, Any]
    weights: Mapping[str, Weight]
    tokenizer: TokenizerFiles
    generation: Mapping[str, Any]
    origin: Origin

    def weight(self, name: str, shape: tuple[int, ...]) -> Weight:
        """The named weight; BadInput when it is absent or of another shape."""
        found = self.weights.get(name)
        if found is None:
            raise BadInput(f"checkpoint: {name} is missing")
        if found.shape != shape:
            raise BadInput(f"checkpoint: {name} has shape {found.shape}, config.json says {shape}")
        return found

    def require_exactly(self, tensors: Mapping[str, tuple[int, ...]]) -> None:
        """BadInput unless the weights are exactly these: no graph would compute the part of any other
        weight.
        """
        missing = [name for name in tensors if name not in self.weights]
        unknown = sorted(set(self.weights) - set(tensors))
        if missing:
            raise BadInput(self._incomplete(missing, unknown, len(tensors)))
        for name, shape in tensors.items():
            self.weight(name, shape)
        if unknown:
            family = self.config.get("model_type")
            raise Unsupported(f"checkpoint: {_listed(unknown)} have no place in a {family} model")

    def _incomplete(self, missing: list[str], unknown: list[str], all_told: int) -> str:
        if missing == ["lm_head.weight"]:
            return (
                "checkpoint: lm_head.weight is missing, and config.json does not tie it to the embedding: set"
                " tie_word_embeddings to true if that is the head, else the file has lost it"
            )
        looked_for = f"checkpoint: looked for {_listed(missing)} ({len(missing)} of {all_told} are missing)"
        if not unknown:
            return f"{looked_for}: is a shard or a file incomplete?"
        family = self.config.get("model_type")
        return f"{looked_for}; there are {_listed(unknown)}, which have no place in a {family} model"


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
