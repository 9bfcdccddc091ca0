"""manifest.json: what an engine is, where it came from, its quality, and the hash of every file."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime as ort

from build.architecture import Model
from build.architecture.parts import Architecture
from build.architecture.seq2seq import EncoderDecoder
from build.assembly import Facts
from build.checkpoint import Checkpoint, TokenizerFiles, sha256
from build.generation import generation
from build.recipe import Recipe
from build.token_table import leading_space
from build.verify import Quality

MANIFEST_FILE = "manifest.json"
_VERSION = 2
_TOOLS = ("gguf", "numpy", "onnx-ir", "safetensors", "tokenizers")

Json = dict[str, Any]


def manifest(
    recipe: Recipe,
    checkpoint: Checkpoint,
    model: Model,
    quality: Quality,
    folder: Path,
    facts: Facts,
    lineage: Json | None = None,
) -> Json:
    """The manifest of the files in the folder; the recipe must have a task."""
    assert recipe.task is not None
    files = {
        path.name: {"sha256": sha256(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())
    }
    origin = asdict(checkpoint.origin)
    return {
        "manifest_version": _VERSION,
        "name": recipe.name,
        "task": recipe.task.value,
        "prefix": recipe.prefix,
        "dialect": facts.dialect,
        "precision": recipe.precision.value,
        "source": {**origin, "licence": recipe.licence or origin["licence"]},
        "recipe": recipe.resolved(),
        "tools": _tools(),
        "model": _model(model, facts.kv_dtype),
        "generation": generation(checkpoint),
        "tokenizer": _tokenizer(checkpoint.tokenizer, model),
        "quality": quality.rounded(),
        **({"engine": dict(facts.engine)} if facts.engine else {}),
        **({"lineage": lineage} if lineage else {}),
        "files": files,
        "size_bytes": sum(file["bytes"] for file in files.values()),
    }


def encode_manifest(content: Json) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _tools() -> Json:
    """Versions of the tools. ONNX Runtime says its own: on a GPU host its package has another name."""
    versions = {name: metadata.version(name) for name in _TOOLS}
    return {"python": platform.python_version(), "onnxruntime": ort.__version__, **versions}


def _tokenizer(files: TokenizerFiles, model: Model) -> Json:
    """What a server must know about the tokenizer.

    An answer of a decoder continues its prompt, so that a leading space is part of the answer.
    """
    own = isinstance(model, EncoderDecoder) and leading_space(files.target or files.json)
    before = {name: files.special.get(name) for name in ("bos_token", "eos_token")}  # older servers read them
    return {**before, "special_tokens": dict(files.special), "leading_space": own}


def _model(model: Model, kv_dtype: str) -> Json:
    shape = _decoder(model) if isinstance(model, Architecture) else _encoder_decoder(model)
    return {
        "family": model.family,
        **shape,
        "kv_dtype": kv_dtype,
        "parameters": sum(map(math.prod, model.tensors().values())),
    }


def _decoder(architecture: Architecture) -> Json:
    return {
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
    }


def _encoder_decoder(model: EncoderDecoder) -> Json:
    """The dimensions of the decoder, which has the caches and generates, and the size of the encoder."""
    decoder, encoder = model.decoder, model.encoder
    return {
        "architecture": "encoder_decoder",
        "layers": len(decoder.layers),
        "hidden_size": decoder.hidden_size,
        "heads": decoder.heads,
        "kv_heads": decoder.heads,
        "head_dim": decoder.head_dim,
        "vocab_size": decoder.vocab_size,
        "source_vocab_size": encoder.vocab_size,
        "max_positions": decoder.max_positions,
        "max_source_positions": encoder.max_positions,
        "encoder_layers": len(encoder.layers),
    }
