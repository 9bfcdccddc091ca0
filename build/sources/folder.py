"""A folder as `save_pretrained` writes it: config.json, safetensors (sharded or not), tokenizer.json."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy the bfloat16 that safetensors returns)
import numpy as np
from safetensors import SafetensorError, safe_open

from build.checkpoint import DERIVED, Checkpoint, Origin, Weight
from build.digest import sha256
from build.errors import BadInput, Unsupported
from build.quantise import Floats
from build.sources.folder_tokenizer import tokenizer_files, used_files
from build.sources.json_object import read_object

_INDEX = "model.safetensors.index.json"
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


def open_folder(folder: Path) -> Checkpoint:
    """The checkpoint in a folder; BadInput names the file at fault."""
    config = read_object(folder / "config.json")
    shards = _shards(folder)
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


def _shards(folder: Path) -> list[Path]:
    if (folder / _INDEX).is_file():
        listed = read_object(folder / _INDEX).get("weight_map")
        names = sorted(set(listed.values())) if isinstance(listed, dict) else []
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise BadInput(f"{folder / _INDEX}: names {', '.join(missing) or 'no shards'}: missing")
        return [folder / name for name in names]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    raise BadInput(f"{folder}: has neither {_SINGLE} nor {_INDEX}{_conversion(folder)}")


def _conversion(folder: Path) -> str:
    if not any((folder / name).is_file() for name in (_PICKLED, f"{_PICKLED}.index.json")):
        return ""
    return f", only {_PICKLED}: {conversion(str(folder), str(folder))}"


def conversion(source: str, folder: str) -> str:
    """How to make safetensors of the format of old, which may hold programs and is not read here."""
    script = (
        f"import transformers as t; c = t.AutoConfig.from_pretrained('{source}');"
        f" getattr(t, c.architectures[0]).from_pretrained('{source}').save_pretrained('{folder}');"
        f" t.AutoTokenizer.from_pretrained('{source}').save_pretrained('{folder}')"
    )
    install = "pip install transformers torch sentencepiece protobuf"
    return f'convert it in an environment of its own: `{install} && python -c "{script}"`'


def _weights(path: Path) -> dict[str, Weight]:
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict: it does not iterate)
            found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: is cut short or damaged ({error}): fetch it again") from error
    found = {name: entry for name, entry in found.items() if not _is_mask(name, entry[1])}
    for name, (_, dtype) in found.items():
        if dtype not in _DTYPES:
            raise Unsupported(f"{path}: {name} is {dtype}: {', '.join(_DTYPES)} are supported")
    return {name: Weight(shape=shape, read=partial(_read, path, name)) for name, (shape, _) in found.items()}


def _is_mask(name: str, dtype: str) -> bool:
    """A buffer of booleans or bytes, which no product could take."""
    return dtype not in _DTYPES and name.endswith(DERIVED)


def _read(path: Path, name: str) -> Floats:
    with safe_open(path, framework="np") as file:
        return np.ascontiguousarray(file.get_tensor(name), np.float32)


def _generation(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Before generation_config.json there was, its settings stood in config.json."""
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
