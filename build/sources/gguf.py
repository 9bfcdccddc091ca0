"""A GGUF file as a checkpoint: metadata becomes config.json, tensors take their Hugging Face names.

llama.cpp permutes the rows of q and k in `llama` files (it rotates neighbouring pairs, transformers
rotates halves): `_unpermuted` gives the row order back. It adds 1 to the norms of Gemma 3, which is taken
off. Q4_0, Q4_1 and Q8_0 blocks stay available unchanged; all other types are dequantised.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from build.architecture import FAMILIES, describe
from build.architecture.family import Layout
from build.architecture.views import shifted
from build.checkpoint import Checkpoint, Origin, Weight
from build.errors import BadInput, Unsupported
from build.quantise import Blocks, Bytes, Floats
from build.sources.gguf_config import config_of
from build.sources.gguf_file import GgufFile, GgufTensor, parse_gguf
from build.sources.gguf_tokenizer import tokenizer_files
from build.sources.gguf_vocabulary import read_vocabulary

_ROPE_FACTORS = "rope_freqs.weight"
_BLOCK = 32
# The half floats before the levels of a block: its scale, and of Q4_1 the value of level 0.
_HEADERS = {GGMLQuantizationType.Q4_0: 1, GGMLQuantizationType.Q4_1: 2, GGMLQuantizationType.Q8_0: 1}
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class _Part:
    """A file, which may be one of several that make a model."""

    name: str
    content: Bytes
    file: GgufFile


def open_gguf(path: Path) -> Checkpoint:
    """The checkpoint in a GGUF file, or in all files of a split one, given the first.

    BadInput when a file is missing, cut short or no GGUF, Unsupported for what the graphs do not compute.
    """
    first = _part(_mapped(path), path.name)
    others = [path.with_name(name) for name in _later_parts(first)]
    return _checkpoint([first, *(_part(_mapped(other), other.name) for other in others)])


def read_gguf(content: Bytes, name: str) -> Checkpoint:
    """The checkpoint in the bytes of the GGUF file of that name, which must be whole."""
    first = _part(content, name)
    if _later_parts(first):
        raise Unsupported(
            f"{name}: is the first of several files: they must be joined by `llama-gguf-split --merge`"
        )
    return _checkpoint([first])


def _mapped(path: Path) -> Bytes:
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    content = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    return content.view(np.ndarray)


def _part(content: Bytes, name: str) -> _Part:
    try:
        return _Part(name, content, parse_gguf(content))
    except Unsupported as error:
        raise Unsupported(f"{name}: {error}") from error
    except ValueError as error:
        reason = f"is no GGUF file, or is cut short or damaged ({error})"
        raise BadInput(f"{name}: {reason}: fetch it again") from error


def _later_parts(first: _Part) -> list[str]:
    """The names of the other files, as llama-gguf-split gives them."""
    count = first.file.metadata.get("split.count", 0)
    if not isinstance(count, int) or count < 2:
        return []
    named = _PART.fullmatch(first.name)
    if named is None or int(named["count"]) != count:
        wanted = f"NAME-00001-of-{count:05}.gguf"
        raise BadInput(f"{first.name}: split.count is {count}: the files must be named {wanted} and on")
    names = [f"{named['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    if first.name != names[0]:
        raise BadInput(f"{first.name}: is a part of a model: give the first, {names[0]}")
    return names[1:]


def _checkpoint(parts: Sequence[_Part]) -> Checkpoint:
    first = parts[0]
    try:
        return _read(first.file.metadata, _joined(parts), _origin(parts))
    except BadInput as error:
        raise type(error)(f"{first.name}: {error}") from error
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise BadInput(f"{first.name}: GGUF metadata is damaged: {type(error).__name__}: {error}") from error


def _read(metadata: Mapping[str, Any], tensors: list[GgufTensor], origin: Origin) -> Checkpoint:
    layout = _layout_of(str(metadata.get("general.architecture")))
    stored = {tensor.name: tensor for tensor in tensors}
    factors = stored.pop(_ROPE_FACTORS, None) if layout.rope_factors else None
    config = config_of(metadata, stored, None if factors is None else _values(factors).tolist(), layout)
    vocabulary = read_vocabulary(metadata)
    suppressed = {"suppress_tokens": list(vocabulary.suppressed)} if vocabulary.suppressed else {}
    return Checkpoint(
        config=config,
        weights=_weights(list(stored.values()), config, layout),
        tokenizer=tokenizer_files(metadata, vocabulary),
        generation={"eos_token_id": sorted(vocabulary.ends), **suppressed},
        origin=origin,
    )


def _joined(parts: Sequence[_Part]) -> list[GgufTensor]:
    """The tensors of all parts; the first part says how many there must be."""
    tensors = [tensor for part in parts for tensor in part.file.tensors]
    wanted = parts[0].file.metadata.get("split.tensors.count", len(tensors))
    if len(tensors) != wanted:
        raise BadInput(f"has {len(tensors)} tensors in {len(parts)} files, split.tensors.count says {wanted}")
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise BadInput(f"GGUF tensor {tensor.name} is there twice")
        seen.add(tensor.name)
    return tensors


def _origin(parts: Sequence[_Part]) -> Origin:
    first = parts[0]
    return Origin(
        kind="gguf",
        id=first.name,
        revision=None,
        licence=first.file.metadata.get("general.license"),
        files={part.name: hashlib.sha256(part.content.data).hexdigest() for part in parts},
    )


def _weights(tensors: list[GgufTensor], config: Mapping[str, Any], layout: Layout) -> dict[str, Weight]:
    """All weights of the model; a bias that the file lacks is zero."""
    expected = describe(config).tensors()
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {
        name: Weight(shape, partial(_zeros, shape))
        for name, shape in expected.items()
        if name.endswith(".bias")
    }
    for tensor in tensors:
        name, part = layout.hub_name(tensor.name), tensor.name.split(".")[-2]
        if name not in expected:
            raise Unsupported(f"GGUF tensor {tensor.name} has no place in a {layout.family} model")
        if tensor.shape != expected[name]:
            shapes = f"{list(tensor.shape)}, must be {list(expected[name])} by the metadata"
            raise BadInput(f"GGUF tensor {tensor.name}: shape {shapes}")
        order = None
        if layout.interleaved and part in heads:
            order = _unpermuted(tensor.shape[0], heads[part])
        weight = _weight(tensor, order)
        shifts = layout.norm_shift and name.endswith("norm.weight")
        weights[name] = shifted(weight, -layout.norm_shift) if shifts else weight
    return weights


def _zeros(shape: tuple[int, ...]) -> Floats:
    return np.zeros(shape, np.float32)


def _unpermuted(rows: int, heads: int) -> NDArray[np.intp]:
    """The row of the file for each row in Hugging Face's order."""
    half = rows // heads // 2
    return np.arange(rows).reshape(heads, half, 2).swapaxes(1, 2).reshape(rows)


def _weight(tensor: GgufTensor, order: NDArray[np.intp] | None) -> Weight:
    return Weight(
        shape=tensor.shape,
        read=partial(_values, tensor, order),
        read_blocks=(partial(_blocks, tensor, order) if tensor.kind in _HEADERS else None),
    )


def _values(tensor: GgufTensor, order: NDArray[np.intp] | None = None) -> Floats:
    """The numbers of a tensor, its rows in another order where one is given."""
    try:
        values = dequantize(tensor.data, tensor.kind)
    except NotImplementedError as error:
        kind = tensor.kind.name
        raise Unsupported(f"GGUF tensor {tensor.name}: type {kind} is not supported") from error
    numbers: Floats = np.ascontiguousarray(values, np.float32)
    return numbers if order is None else numbers[order]


def _blocks(tensor: GgufTensor, order: NDArray[np.intp] | None) -> Blocks:
    """In 4 bits elements 0..15 are in low and 16..31 in high nibbles; Q8_0 is int8."""
    rows, halves = tensor.data.shape[0], _HEADERS[tensor.kind]
    four = tensor.kind is not GGMLQuantizationType.Q8_0
    raw = tensor.data.reshape(rows, -1, 2 * halves + (_BLOCK // 2 if four else _BLOCK))
    header = raw[:, :, : 2 * halves].copy().view(np.float16).astype(np.float32)
    body = raw[:, :, 2 * halves :]
    if four:
        levels = np.concatenate([body & np.uint8(15), body >> np.uint8(4)], axis=2)
    else:
        levels = body ^ np.uint8(128)  # two's complement to excess 128
    scales = np.ascontiguousarray(header[:, :, 0])
    # The zero of a block is its level 8: the offset is the value there.
    offsets = header[:, :, 1] + 8 * scales if halves == 2 else None
    blocks = Blocks(4 if four else 8, tensor.shape[-1], levels, scales, offsets)
    return blocks if order is None else blocks.take_rows(order)


def _layout_of(architecture: str) -> Layout:
    layouts = {name: layout for family in FAMILIES.values() for name, layout in family.gguf.items()}
    if architecture not in layouts:
        supported = ", ".join(layouts)
        raise Unsupported(f"GGUF architecture {architecture!r} is not supported: {supported} are")
    return layouts[architecture]
