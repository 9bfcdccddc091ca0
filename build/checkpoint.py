"""A checkpoint as every source presents it: Hugging Face names and layout, read lazily.

Invariants
- weights are named and shaped as `transformers` saves them ([rows out, columns in] for a linear map);
- nothing is read until `Weight.read()` is called, and nothing is cached: a 135M model is 0.5 GB in fp32;
- passes are functions `(Checkpoint, Options) -> Checkpoint`: they never load, save or print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from build.errors import BadInput, Unsupported
from build.quantise import Blocks, Floats

# Tensors that follow from others: old checkpoints saved rotary frequencies, causal masks and tied heads.
DERIVED = ("rotary_emb.inv_freq", "lm_head.weight", ".attn.bias", ".attn.masked_bias")


@dataclass(frozen=True)
class Weight:
    """One tensor: its fp32 values, and the blocks it was stored in where those can be carried over."""

    shape: tuple[int, ...]
    read: Callable[[], Floats]
    read_blocks: Callable[[], Blocks] | None = None


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
            raise BadInput(f"checkpoint: {name} is missing: is a shard or a file incomplete?")
        if found.shape != shape:
            raise BadInput(f"checkpoint: {name} has shape {found.shape}, config.json says {shape}")
        return found

    def require_exactly(self, tensors: Mapping[str, tuple[int, ...]]) -> None:
        """BadInput unless the weights are these: one left over is a part nobody would compute."""
        for name, shape in tensors.items():
            self.weight(name, shape)
        unknown = sorted(set(self.weights) - set(tensors))
        unknown = [name for name in unknown if not name.endswith(DERIVED)]
        if unknown:
            raise Unsupported(
                f"checkpoint: {unknown[0]} and {len(unknown) - 1} more tensors have no place in a"
                f" {self.config.get('model_type')} model"
            )
