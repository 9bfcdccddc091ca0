"""A GGUF file as a checkpoint: metadata becomes config.json, tensors take their Hugging Face names.

llama.cpp permutes the rows of q and k in `llama` files (it rotates neighbouring pairs, transformers
rotates halves): `_unpermuted` gives the row order back. It adds 1 to the norms of Gemma 3, which is taken
off. Q4_0 and Q8_0 blocks stay available as they are; all other types are dequantised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from build.architecture.view import shifted
from build.checkpoint import Checkpoint, Origin, Weight
from build.errors import BadInput, Unsupported
from build.quantise import Blocks, Bytes, Floats
from build.sources.gguf_file import GgufTensor, parse_gguf
from build.sources.gguf_layout import Layout, layout_of
from build.sources.gguf_tokenizer import tokenizer_files

_ROPE_FACTORS = "rope_freqs.weight"
_BLOCK = 32
_GEMMA3_27B_LAYERS = 62

Metadata = Mapping[str, Any]


def open_gguf(path: Path) -> Checkpoint:
    """The checkpoint in a GGUF file; BadInput when it is truncated or is none."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    content = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    return read_gguf(content.view(np.ndarray), path.name)


def read_gguf(content: Bytes, name: str) -> Checkpoint:
    """The checkpoint in the bytes of the GGUF file of that name."""
    try:
        file = parse_gguf(content)
    except ValueError as error:
        reason = f"is no GGUF file, or is cut short or damaged ({error})"
        raise BadInput(f"{name}: {reason}: fetch it again") from error
    metadata = file.metadata
    layout = layout_of(str(metadata.get("general.architecture")))
    config = _config(metadata, file.tensors, layout)
    return Checkpoint(
        config=config,
        weights=_weights(file.tensors, config, layout),
        tokenizer=tokenizer_files(metadata),
        generation={"eos_token_id": _eos_ids(metadata)},
        origin=Origin(
            kind="gguf",
            id=name,
            revision=None,
            licence=metadata.get("general.license"),
            files={name: hashlib.sha256(content.data).hexdigest()},
        ),
    )


def _config(metadata: Metadata, tensors: list[GgufTensor], layout: Layout) -> dict[str, Any]:
    arch = metadata["general.architecture"]
    names = {tensor.name for tensor in tensors}
    heads = _required(metadata, f"{arch}.attention.head_count")
    hidden = _required(metadata, f"{arch}.embedding_length")
    config = {
        "model_type": layout.family,
        "vocab_size": len(_required(metadata, "tokenizer.ggml.tokens")),
        "hidden_size": hidden,
        "intermediate_size": _required(metadata, f"{arch}.feed_forward_length"),
        "num_hidden_layers": _required(metadata, f"{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{arch}.attention.head_count_kv", heads),
        "head_dim": metadata.get(f"{arch}.attention.key_length", hidden // heads),
        "rms_norm_eps": _required(metadata, f"{arch}.attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": _required(metadata, f"{arch}.context_length"),
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": "blk.0.attn_q.bias" in names,
        "rope_theta": metadata.get(f"{arch}.rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(arch, metadata, tensors),
    }
    return config | _gemma3(metadata, config) if arch == "gemma3" else config


def _gemma3(metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp knows by heart, or by the number of layers."""
    shared = config["hidden_size"] // config["num_attention_heads"]
    is_27b = config["num_hidden_layers"] == _GEMMA3_27B_LAYERS
    return {
        "sliding_window": _required(metadata, "gemma3.attention.sliding_window"),
        "sliding_window_pattern": metadata.get("gemma3.attention.sliding_window_pattern", 6),
        "rope_theta": metadata.get("gemma3.rope.freq_base", 1e6),
        "rope_local_base_freq": metadata.get("gemma3.rope.freq_base_swa", 1e4),
        "query_pre_attn_scalar": shared if is_27b else config["head_dim"],
        "final_logit_softcapping": metadata.get("gemma3.final_logit_softcapping"),
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _required(metadata: Metadata, key: str) -> Any:
    if key not in metadata:
        raise BadInput(f"GGUF metadata: {key} is missing")
    return metadata[key]


def _rope_scaling(arch: str, metadata: Metadata, tensors: list[GgufTensor]) -> dict[str, Any] | None:
    factors = [tensor for tensor in tensors if tensor.name == _ROPE_FACTORS]
    if factors:
        return {"rope_type": "factors", "factors": _values(factors[0]).tolist()}
    kind = metadata.get(f"{arch}.rope.scaling.type", "none")
    if kind == "none":
        return None
    return {"rope_type": kind, "factor": metadata.get(f"{arch}.rope.scaling.factor", 1.0)}


def _eos_ids(metadata: Metadata) -> list[int]:
    keys = [f"tokenizer.ggml.{kind}_token_id" for kind in ("eos", "eot", "eom")]
    return sorted({int(metadata[key]) for key in keys if key in metadata})


def _weights(tensors: list[GgufTensor], config: Mapping[str, Any], layout: Layout) -> dict[str, Weight]:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for tensor in tensors:
        if tensor.name == _ROPE_FACTORS:
            continue
        name, part = layout.hub_name(tensor.name), tensor.name.split(".")[-2]
        order = None
        if layout.interleaved and part in heads:
            order = _unpermuted(tensor.shape[0], heads[part])
        weight = _weight(tensor, order)
        shifts = layout.norm_shift and name.endswith("norm.weight")
        weights[name] = shifted(weight, -layout.norm_shift) if shifts else weight
    return weights


def _unpermuted(rows: int, heads: Any) -> NDArray[np.intp]:
    """Where each Hugging Face row stands in the file."""
    if not isinstance(heads, int) or heads < 1 or rows % (2 * heads):
        raise BadInput(f"GGUF metadata: {heads!r} attention heads do not divide {rows} rows")
    half = rows // heads // 2
    return np.arange(rows).reshape(heads, half, 2).swapaxes(1, 2).reshape(rows)


def _weight(tensor: GgufTensor, order: NDArray[np.intp] | None) -> Weight:
    block_types = (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0)
    return Weight(
        shape=tensor.shape,
        read=partial(_ordered_values, tensor, order),
        read_blocks=(partial(_blocks, tensor, order) if tensor.kind in block_types else None),
    )


def _ordered_values(tensor: GgufTensor, order: NDArray[np.intp] | None) -> Floats:
    values = _values(tensor)
    return values if order is None else values[order]


def _values(tensor: GgufTensor) -> Floats:
    try:
        values = dequantize(tensor.data, tensor.kind)
    except NotImplementedError as error:
        kind = tensor.kind.name
        raise Unsupported(f"GGUF tensor {tensor.name}: type {kind} is not supported") from error
    return np.ascontiguousarray(values, np.float32)


def _blocks(tensor: GgufTensor, order: NDArray[np.intp] | None) -> Blocks:
    """Q4_0: an fp16 scale, then elements 0..15 in low and 16..31 in high nibbles; Q8_0: int8."""
    rows = tensor.data.shape[0]
    four = tensor.kind is GGMLQuantizationType.Q4_0
    raw = tensor.data.reshape(rows, -1, 2 + (_BLOCK // 2 if four else _BLOCK))
    scales = raw[:, :, :2].copy().view(np.float16)[:, :, 0].astype(np.float32)
    body = raw[:, :, 2:]
    if four:
        levels = np.concatenate([body & np.uint8(15), body >> np.uint8(4)], axis=2)
    else:
        levels = body ^ np.uint8(128)  # two's complement to excess 128
    blocks = Blocks(4 if four else 8, tensor.shape[-1], levels, scales)
    return blocks if order is None else blocks.take_rows(order)
