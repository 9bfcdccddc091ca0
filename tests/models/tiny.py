"""Tiny random checkpoints of every family, as folders and as GGUF files. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf.quants import quantize
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import pre_tokenizers

from build.architecture import describe, view
from build.checkpoint import Checkpoint
from build.sources.folder import open_folder
from build.sources.gguf import open_gguf
from tests.models.tiny_stored import Tensors, stored

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma3_text")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
VOCAB = [*SPECIALS, *ALPHABET, "Ġt", "he", "in", "Ġthe"]
MERGES = [("Ġ", "t"), ("h", "e"), ("i", "n"), ("Ġt", "he")]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def config(family: str, **changes: Any) -> dict[str, Any]:
    """A config.json that transformers reads too."""
    others = {"gpt2": _gpt2, "gemma3_text": _gemma3}
    return {**(others[family]() if family in others else _llama(family)), **changes}


def _gpt2() -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": len(VOCAB),
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "eos_token_id": 0,
        "bos_token_id": 0,
    }


def _gemma3() -> dict[str, Any]:
    """Two layers of windows to each global one, heads wider than a share of the hidden size."""
    return {
        **_llama("llama"),
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 24,
        "sliding_window": 9,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "tie_word_embeddings": True,
    }


def _llama(family: str) -> dict[str, Any]:
    classes = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    return {
        "model_type": family,
        "architectures": [f"{classes[family]}ForCausalLM"],
        "vocab_size": len(VOCAB),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 2.0**-17,  # exact in the fp32 of a GGUF
        "max_position_embeddings": 256,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "sliding_window": None,
        "hidden_act": "silu",
        "eos_token_id": 2,
        "bos_token_id": 1,
    }


def tensors(settings: Mapping[str, Any], seed: int = 0) -> Tensors:
    """Random weights as the adapter names them; norms near 1, products that keep their scale."""
    random = np.random.default_rng(seed)
    made: Tensors = {}
    for name, shape in describe(settings).tensors().items():
        values = random.standard_normal(shape).astype(np.float32)
        if len(shape) == 2:
            made[name] = values * np.float32(1.5 / np.sqrt(shape[1]))
        else:
            made[name] = values * np.float32(0.1) + np.float32(name.endswith(".weight"))  # gains are near 1
    return made


def tokenizer_json() -> dict[str, Any]:
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": token, "special": True, **added} for index, token in enumerate(SPECIALS)
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(VOCAB)},
            "merges": [list(merge) for merge in MERGES],
        },
    }


def write_folder(folder: Path, family: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A checkpoint as save_pretrained leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = config(family, **changes)
    _write_json(folder / "config.json", settings)
    _write_json(folder / "generation_config.json", {"eos_token_id": [2, 0]})
    # transformers' class for Qwen2 normalises, whatever tokenizer.json says.
    normalizer = {"normalizer": {"type": "NFC"}} if family == "qwen2" else {}
    _write_json(folder / "tokenizer.json", tokenizer_json() | normalizer)
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIALS[1],
            "eos_token": {"__type": "AddedToken", "content": SPECIALS[2]},
            "chat_template": CHAT_TEMPLATE,
        },
    )
    made = stored(settings, tensors(settings, seed))
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def opened(folder: Path) -> Checkpoint:
    """The folder as passes, dialects and the reference take it."""
    return view(open_folder(folder))


def opened_gguf(path: Path) -> Checkpoint:
    """As `opened`; every tensor has its place."""
    checkpoint = view(open_gguf(path))
    checkpoint.require_exactly(describe(checkpoint.config).tensors())
    return checkpoint


def shard(folder: Path) -> None:
    """Splits the folder's weights over two files with an index."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    files: dict[str, str] = {}
    for index, part in enumerate((names[::2], names[1::2])):
        file = f"model-{index + 1:05}-of-00002.safetensors"
        save_file({name: whole[name] for name in part}, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": files})


_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GEMMA3_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def write_gguf(
    path: Path,
    family: str = "llama",
    kind: Kind = Kind.F32,
    seed: int = 0,
    pre: str = "gpt-2",
    rope_factors: Sequence[float] = (),
    raw: Mapping[str, tuple[Kind, NDArray[np.uint8]]] | None = None,
    metadata: Mapping[str, Any] | None = None,
    extra: Mapping[str, NDArray[np.float32]] | None = None,
    tensors_a_file: int = 0,
    **changes: Any,
) -> Path:
    """What llama.cpp's converter makes of `config` and `tensors`: matrices are stored as `kind`.

    Norms are stored as they multiply, Gemma's with the 1 that is added to its weights. `raw` holds the bytes
    [rows, bytes of a row] of some tensors, and their type. `metadata` replaces keys, and takes off those that
    are None: one that begins with a dot belongs to the architecture. `extra` are more tensors, by their
    names in the file. A limit of tensors a file splits the model: NAME-00001-of-0000N.gguf and on.
    """
    settings = config(family, **changes)
    architecture = family.removesuffix("_text")
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_a_file)
    _write_settings(writer, settings)
    _write_vocabulary(writer, pre)
    for key, value in (metadata or {}).items():
        _replace(writer, f"{architecture}{key}" if key.startswith(".") else key, value)
    if rope_factors:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, np.float32))
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    given = raw or {}
    for name, (given_kind, rows) in given.items():
        writer.add_tensor(_gguf_name(family, name), rows, raw_dtype=given_kind)
    for name, values in tensors(settings, seed).items():
        if name in given:
            continue
        stored = values
        if family == "llama" and ".q_proj" in name:
            stored = _permuted(values, settings["num_attention_heads"])
        elif family == "llama" and ".k_proj" in name:
            stored = _permuted(values, settings["num_key_value_heads"])
        if values.ndim == 2 and kind is not Kind.F32:
            writer.add_tensor(_gguf_name(family, name), quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_gguf_name(family, name), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _replace(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Whole numbers are stored without a sign, as llama.cpp wants them."""
    (written,) = writer.kv_data
    written.pop(key, None)
    kinds = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32}
    if value is not None:
        writer.add_key_value(key, value, kinds.get(type(value)) or gguf.GGUFValueType.get_type(value))


def _write_settings(writer: gguf.GGUFWriter, settings: Mapping[str, Any]) -> None:
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_key_length(settings["head_dim"])
    writer.add_value_length(settings["head_dim"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    writer.add_rope_freq_base(settings["rope_theta"])
    if settings["model_type"] == "gemma3_text":
        writer.add_sliding_window(settings["sliding_window"])


def _write_vocabulary(writer: gguf.GGUFWriter, pre: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(VOCAB)
    writer.add_token_types([3] * len(SPECIALS) + [1] * (len(VOCAB) - len(SPECIALS)))
    writer.add_token_merges([" ".join(merge) for merge in MERGES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _permuted(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Halves of a head to neighbouring pairs, as llama.cpp rotates them."""
    rows = values.shape[0] // heads // 2
    return values.reshape(heads, 2, rows, -1).swapaxes(1, 2).reshape(values.shape)


def _gguf_name(family: str, name: str) -> str:
    names = _GGUF_NAMES | (_GEMMA3_NAMES if family == "gemma3_text" else {})
    stem, _, leaf = name.rpartition(".")
    if stem in names:
        return f"{names[stem]}.{leaf}"
    _, _, index, part = stem.split(".", 3)
    return f"blk.{index}.{names[part]}.{leaf}"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
