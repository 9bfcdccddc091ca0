"""manifest.json: what an engine is, where it came from, what it is worth, and the hash of every file."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.digest import sha256
from build.errors import BadInput
from build.recipe import Recipe
from build.verify import Quality

MANIFEST_FILE = "manifest.json"
_VERSION = 2
_TOOLS = ("gguf", "numpy", "onnx-ir", "onnxruntime", "safetensors", "tokenizers")

Json = dict[str, Any]


def manifest(
    recipe: Recipe,
    checkpoint: Checkpoint,
    architecture: Architecture,
    quality: Quality,
    folder: Path,
) -> Json:
    """Describes the folder as it stands: every file in it is listed. The recipe's task is settled."""
    assert recipe.task is not None
    files = {path.name: _file(path) for path in sorted(folder.iterdir())}
    origin = asdict(checkpoint.origin)
    return {
        "manifest_version": _VERSION,
        "name": recipe.name,
        "task": recipe.task.value,
        "prefix": recipe.prefix,
        "dialect": "onnxruntime",
        "precision": recipe.precision.value,
        "source": {**origin, "licence": recipe.licence or origin["licence"]},
        "recipe": recipe.resolved(),
        "tools": {"python": platform.python_version()} | {t: metadata.version(t) for t in _TOOLS},
        "model": _model(architecture),
        "generation": generation(checkpoint),
        "tokenizer": {
            "bos_token": checkpoint.tokenizer.bos_token,
            "eos_token": checkpoint.tokenizer.eos_token,
        },
        "quality": quality.rounded(),
        "files": files,
        "size_bytes": sum(file["bytes"] for file in files.values()),
    }


def encode_manifest(content: Json) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _file(path: Path) -> Json:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def _model(architecture: Architecture) -> Json:
    return {
        "family": architecture.family,
        "architecture": "decoder",
        "layers": len(architecture.layers),
        "hidden_size": architecture.hidden_size,
        "heads": architecture.heads,
        "kv_heads": architecture.kv_heads,
        "head_dim": architecture.head_dim,
        "vocab_size": architecture.vocab_size,
        "max_positions": architecture.max_positions,
        "max_source_positions": 0,
        "encoder_layers": 0,
        "kv_dtype": "float32",
        "parameters": sum(map(math.prod, architecture.tensors().values())),
    }


def generation(checkpoint: Checkpoint) -> Json:
    """The checkpoint's own way to generate; greedy unless it says do_sample.

    Lengths count new tokens. transformers' `min_length` and `max_length` count the decoder's start token too,
    and with a decoder alone the prompt, which nobody knows here: there only its `..._new_tokens` are taken.
    """
    settings = checkpoint.generation
    sample = bool(settings.get("do_sample", False))
    return {
        "eos_token_ids": _eos_ids(settings),
        "temperature": _number(settings, "temperature", 1.0) if sample else 0.0,
        "top_p": _number(settings, "top_p", 1.0) if sample else 1.0,
        "top_k": int(_number(settings, "top_k", 50)) if sample else 0,
        "min_p": _number(settings, "min_p", 0.0) if sample else 0.0,
        "repetition_penalty": _number(settings, "repetition_penalty", 1.0),
        "decoder_start_token_id": _optional(settings, "decoder_start_token_id"),
        "forced_bos_token_id": _optional(settings, "forced_bos_token_id"),
        "forced_eos_token_id": _optional(settings, "forced_eos_token_id"),
        "num_beams": int(_number(settings, "num_beams", 1)),
        "length_penalty": _number(settings, "length_penalty", 1.0),
        "early_stopping": _early_stopping(settings),
        "no_repeat_ngram_size": int(_number(settings, "no_repeat_ngram_size", 0)),
        "min_tokens": max(_length(checkpoint, "min") or 0, 0),
        "max_tokens": _length(checkpoint, "max"),
        "suppress_tokens": _suppressed(settings),
    }


def _length(checkpoint: Checkpoint, end: str) -> int | None:
    new = _optional(checkpoint.generation, f"{end}_new_tokens")
    whole = _optional(checkpoint.generation, f"{end}_length")
    if new is not None or whole is None or not checkpoint.config.get("is_encoder_decoder"):
        return new
    return whole - 1


def _early_stopping(settings: Mapping[str, Any]) -> str:
    value = settings.get("early_stopping")
    if value not in (None, False, True, "never"):
        raise BadInput(f"generation_config.json: early_stopping: {value!r}, must be true, false or 'never'")
    return str(value or False).lower()


def _suppressed(settings: Mapping[str, Any]) -> list[int]:
    """Tokens that are never chosen: what `suppress_tokens` lists, and bad words of one token."""
    words = settings.get("bad_words_ids") or []
    return sorted({*(settings.get("suppress_tokens") or []), *(word[0] for word in words if len(word) == 1)})


def _eos_ids(settings: Mapping[str, Any]) -> list[int]:
    ids = settings.get("eos_token_id")
    listed = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(isinstance(index, int) for index in listed):
        raise BadInput(f"generation_config.json: eos_token_id: {ids!r}, must be ids")
    return listed


def _number(settings: Mapping[str, Any], key: str, default: float) -> float:
    value = settings.get(key)
    value = default if value is None else value
    if not isinstance(value, (int, float)):
        raise BadInput(f"generation_config.json: {key}: {value!r}, must be a number")
    return float(value)


def _optional(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    if value is not None and not isinstance(value, int):
        raise BadInput(f"generation_config.json: {key}: {value!r}, must be a whole number")
    return value
