"""A folder as `save_pretrained` writes it: config.json, safetensors (sharded or not), tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy the bfloat16 that safetensors returns)
import numpy as np
from safetensors import SafetensorError, safe_open

from build.architecture import completed
from build.checkpoint import Checkpoint, Origin, Weight, sha256
from build.errors import BadInput, Unsupported
from build.quantise import Floats
from build.sources.files import conversion, read_object
from build.sources.folder_tokenizer import tokenizer_files, used_files

_OF_INDEX = ".safetensors.index.json"
_INDEX = f"model{_OF_INDEX}"
_SINGLE = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_GENERATION = "generation_config.json"
_ALWAYS_GENERATION = ("eos_token_id", "decoder_start_token_id")
_OLD_GENERATION = (
    "bad_words_ids",
    "do_sample",
    "early_stopping",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beams",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
)
_DTYPES = ("F32", "F16", "BF16", "F64")
_MASKS = (".attn.bias", ".attn.masked_bias")  # buffers of GPT-2, of booleans or bytes


def open_folder(folder: Path) -> Checkpoint:
    """The checkpoint in a folder; BadInput names the faulty file."""
    config = completed(read_object(folder / "config.json"))
    if (folder / "adapter_config.json").is_file():
        raise Unsupported(
            f"{folder}: adapter_config.json: is an adapter (LoRA), which changes another model's weights:"
            " merge it into that model (peft's merge_and_unload) and give the result"
        )
    shards = _shards(folder, config)
    weights: dict[str, Weight] = {}
    for shard in shards:
        weights.update(_weights(shard))
    used = [folder / "config.json", *shards, *used_files(folder)]
    used += [folder / _GENERATION] if (folder / _GENERATION).is_file() else []
    return Checkpoint(
        config=config,
        weights=weights,
        tokenizer=tokenizer_files(folder, config),
        generation=_generation(folder, config),
        origin=Origin(
            kind="folder",
            id=folder.resolve().name,
            revision=None,
            licence=_licence(folder / "README.md"),
            files={path.relative_to(folder).as_posix(): sha256(path) for path in used},
        ),
    )


def _shards(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    first = weights_file(config, folder, lambda name: (folder / name).is_file())
    if first is None:
        pickled = any((folder / name).is_file() for name in (_PICKLED, f"{_PICKLED}.index.json"))
        way = f", only {_PICKLED}: {conversion(str(folder), str(folder))}" if pickled else ""
        raise BadInput(f"{folder}: has neither {_SINGLE} nor {_INDEX}{way}")
    names = shard_names(folder, first)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BadInput(f"{folder / first}: names {', '.join(missing)}: missing")
    return [folder / name for name in names]


def weights_file(config: Mapping[str, Any], folder: Path, has: Callable[[str], bool]) -> str | None:
    """What transformers opens for weights: the file that `config` names, the single one, or the index.

    `has` says which files there are, `folder` where config.json lies. None if there is none of these.
    """
    named = config.get("transformers_weights")
    if named is None:  # next to a whole file, an index is of an earlier save
        return next((name for name in (_SINGLE, _INDEX) if has(name)), None)
    if not isinstance(named, str) or not named.endswith((".safetensors", _OF_INDEX)):
        raise BadInput(f"{folder / 'config.json'}: transformers_weights: {named!r}, must be safetensors")
    if PurePosixPath(named).is_absolute() or ".." in PurePosixPath(named).parts or not has(named):
        raise BadInput(f"{folder / 'config.json'}: transformers_weights: {named!r}: no such file next to it")
    return named


def shard_names(folder: Path, first: str) -> list[str]:
    """The files of weights: `first`, as `weights_file` gave it, or those that it names as an index."""
    if not first.endswith(_OF_INDEX):
        return [first]
    listed = read_object(folder / first).get("weight_map")
    names = listed.values() if isinstance(listed, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise BadInput(f"{folder / first}: names no shards: weight_map must give the file of each weight")
    return sorted(set(names))


def _weights(path: Path) -> dict[str, Weight]:
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict: it does not iterate)
            found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: is cut short or damaged ({error}): fetch it again") from error
    for name, (_, dtype) in found.items():
        if dtype not in _DTYPES and not name.endswith(_MASKS):
            raise Unsupported(f"{path}: {name} is {dtype}: {', '.join(_DTYPES)} are supported")
    return {name: Weight(shape=shape, read=partial(_read, path, name)) for name, (shape, _) in found.items()}


def _read(path: Path, name: str) -> Floats:
    with safe_open(path, framework="np") as file:
        return np.ascontiguousarray(file.get_tensor(name), np.float32)


def _generation(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The settings for generation; before there was a generation_config.json, they stood in config.json."""
    path = folder / _GENERATION
    keys = _ALWAYS_GENERATION if path.is_file() else (*_ALWAYS_GENERATION, *_OLD_GENERATION)
    found = {key: config[key] for key in keys if config.get(key) is not None}
    settings = found | (read_object(path) if path.is_file() else {})
    if config.get("is_encoder_decoder") and settings.get("decoder_start_token_id") is None:
        settings["decoder_start_token_id"] = settings.get("bos_token_id", config.get("bos_token_id"))
    return settings


def _licence(readme: Path) -> str | None:
    """The `license:` line of a model card's front matter."""
    if not readme.is_file():
        return None
    lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0] != "---":
        return None
    for line in lines[1:]:
        if line == "---":
            return None
        if line.startswith("license:"):
            return line.removeprefix("license:").strip()
    return None
