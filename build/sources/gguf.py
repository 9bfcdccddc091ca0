"""A GGUF file as a checkpoint: metadata becomes config.json, tensors take their Hugging Face names.

llama.cpp permutes the rows of q and k in `llama` files (it rotates neighbouring pairs, transformers
rotates halves); `_unpermuted` gives the row order back. Q4_0 and Q8_0 blocks stay available as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor
from gguf.quants import dequantize
from numpy.typing import NDArray

from build.checkpoint import Checkpoint, Origin, Weight
from build.digest import sha256
from build.errors import BadInput, Unsupported
from build.quantise import Blocks, Floats
from build.sources.gguf_tokenizer import tokenizer_files

_FAMILY = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROPE_FACTORS = "rope_freqs.weight"
_BLOCK = 32

Metadata = Mapping[str, Any]


def open_gguf(path: Path, kind: str = "gguf", name: str | None = None) -> Checkpoint:
    """The checkpoint in a GGUF file; BadInput when it is truncated or is none."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    reader = _read(path)
    metadata = {key: field.contents() for key, field in reader.fields.items()}
    config = _config(metadata, reader.tensors)
    return Checkpoint(
        config=config,
        weights=_weights(reader.tensors, config),
        tokenizer=tokenizer_files(metadata),
        generation={"eos_token_id": _eos_ids(metadata)},
        origin=Origin(
            kind=kind,
            id=name or path.name,
            revision=None,
            licence=metadata.get("general.license"),
            files={path.name: sha256(path)},
        ),
    )


def _read(path: Path) -> GGUFReader:
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, TypeError) as error:
        reason = f"is no GGUF file, or is cut short or damaged ({error})"
        raise BadInput(f"{path.name}: {reason}: fetch it again") from error


def _config(metadata: Metadata, tensors: list[ReaderTensor]) -> dict[str, Any]:
    arch = str(metadata.get("general.architecture"))
    if arch not in _FAMILY:
        supported = ", ".join(_FAMILY)
        raise Unsupported(f"GGUF architecture {arch!r} is not supported: {supported} are")
    names = {tensor.name for tensor in tensors}
    heads = _required(metadata, f"{arch}.attention.head_count")
    return {
        "model_type": _FAMILY[arch],
        "vocab_size": len(_required(metadata, "tokenizer.ggml.tokens")),
        "hidden_size": _required(metadata, f"{arch}.embedding_length"),
        "intermediate_size": _required(metadata, f"{arch}.feed_forward_length"),
        "num_hidden_layers": _required(metadata, f"{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{arch}.attention.head_count_kv", heads),
        "head_dim": metadata.get(f"{arch}.attention.key_length"),
        "rms_norm_eps": _required(metadata, f"{arch}.attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": _required(metadata, f"{arch}.context_length"),
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": "blk.0.attn_q.bias" in names,
        "rope_theta": metadata.get(f"{arch}.rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(arch, metadata, tensors),
    }


def _required(metadata: Metadata, key: str) -> Any:
    if key not in metadata:
        raise BadInput(f"GGUF metadata: {key} is missing")
    return metadata[key]


def _rope_scaling(arch: str, metadata: Metadata, tensors: list[ReaderTensor]) -> dict[str, Any] | None:
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


def _weights(tensors: list[ReaderTensor], config: Mapping[str, Any]) -> dict[str, Weight]:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for tensor in tensors:
        if tensor.name == _ROPE_FACTORS:
            continue
        name, part = _hub_name(tensor.name), tensor.name.split(".")[-2]
        order = None
        if config["model_type"] == "llama" and part in heads:
            order = _unpermuted(int(tensor.shape[-1]), heads[part])
        weights[name] = _weight(tensor, order)
    return weights


def _hub_name(name: str) -> str:
    *path, leaf = name.split(".")
    if len(path) == 1 and path[0] in _WHOLE:
        return f"{_WHOLE[path[0]]}.{leaf}"
    if len(path) == 3 and path[0] == "blk" and path[2] in _LAYER:
        return f"model.layers.{path[1]}.{_LAYER[path[2]]}.{leaf}"
    raise Unsupported(f"GGUF tensor {name} has no place in a Llama-like model")


def _unpermuted(rows: int, heads: Any) -> NDArray[np.intp]:
    """Where each Hugging Face row stands in the file."""
    if not isinstance(heads, int) or heads < 1 or rows % (2 * heads):
        raise BadInput(f"GGUF metadata: {heads!r} attention heads do not divide {rows} rows")
    half = rows // heads // 2
    return np.arange(rows).reshape(heads, half, 2).swapaxes(1, 2).reshape(rows)


def _weight(tensor: ReaderTensor, order: NDArray[np.intp] | None) -> Weight:
    block_types = (GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0)
    return Weight(
        shape=tuple(int(n) for n in reversed(tensor.shape)),
        read=partial(_ordered_values, tensor, order),
        read_blocks=(partial(_blocks, tensor, order) if tensor.tensor_type in block_types else None),
    )


def _ordered_values(tensor: ReaderTensor, order: NDArray[np.intp] | None) -> Floats:
    values = _values(tensor)
    return values if order is None else values[order]


def _values(tensor: ReaderTensor) -> Floats:
    try:
        values = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        kind = tensor.tensor_type.name
        raise Unsupported(f"GGUF tensor {tensor.name}: type {kind} is not supported") from error
    return np.ascontiguousarray(values, np.float32)


def _blocks(tensor: ReaderTensor, order: NDArray[np.intp] | None) -> Blocks:
    """Q4_0: an fp16 scale, then elements 0..15 in low and 16..31 in high nibbles; Q8_0: int8."""
    rows = tensor.data.shape[0]
    four = tensor.tensor_type is GGMLQuantizationType.Q4_0
    raw = tensor.data.reshape(rows, -1, 2 + (_BLOCK // 2 if four else _BLOCK))
    scales = raw[:, :, :2].copy().view(np.float16)[:, :, 0].astype(np.float32)
    body = raw[:, :, 2:]
    if four:
        levels = np.concatenate([body & np.uint8(15), body >> np.uint8(4)], axis=2)
    else:
        levels = body ^ np.uint8(128)  # two's complement to excess 128
    blocks = Blocks(4 if four else 8, int(tensor.shape[0]), levels, scales)
    return blocks if order is None else blocks.take_rows(order)
