"""What an absent key of config.json means: the default that transformers 5.23 has in the family's class.

Every key that an adapter reads is listed. Where the default is None, the value follows from other keys. A
null in the file is not an absent key: where transformers derives the value so do we, else it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_ROTARY: Final = {"rope_theta": 10000.0, "rope_scaling": None, "rope_parameters": None}
_LLAMA: Final = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    **_ROTARY,
}
_LINE: Final = {key: value for key, value in _LLAMA.items() if not key.endswith("_bias")}
_MISTRAL: Final = _LINE | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
_QWEN2: Final = _LINE | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
_GEMMA3: Final = _ROTARY | {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "layer_types": None,
    "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
}
_GPT2: Final = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_BART: Final = {
    "vocab_size": 50265,
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "activation_function": "gelu",
    "d_model": 1024,
    "scale_embedding": False,
    "tie_word_embeddings": True,
    "is_encoder_decoder": True,
}
_MARIAN: Final = _BART | {
    "vocab_size": 58101,
    "decoder_vocab_size": None,
    "share_encoder_decoder_embeddings": True,
}
_T5: Final = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": None,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "scale_decoder_outputs": None,
    "is_encoder_decoder": True,
}
_MT5: Final = {key: value for key, value in _T5.items() if key != "scale_decoder_outputs"} | {
    "vocab_size": 250112,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
}
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "qwen2": _QWEN2,
    "qwen3": _QWEN2 | {"head_dim": 128, "attention_bias": False},
    "gemma3_text": _GEMMA3,
    "gpt2": _GPT2,
    "bart": _BART,
    "mbart": _BART,
    "marian": _MARIAN,
    "pegasus": _BART,
    "t5": _T5,
    "mt5": _MT5,
}
_BART_NAMES: Final = {
    "num_attention_heads": "encoder_attention_heads",
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
}
_T5_NAMES: Final = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
# Other names of keys, which win over their own.
NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "gpt2": {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    **dict.fromkeys(("bart", "mbart", "marian", "pegasus"), _BART_NAMES),
    **dict.fromkeys(("t5", "mt5"), _T5_NAMES),
}


def may_be_null(family: str) -> frozenset[str]:
    """Keys that a config.json of the family may set to null."""
    none = {key for key, value in DEFAULTS.get(family, {}).items() if value is None}
    return frozenset(none | ({"num_key_value_heads"} if family in ("qwen2", "qwen3") else set()))


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every key that its family's adapter reads; an unknown family's config is unchanged."""
    family = str(config.get("model_type"))
    names = NAMES.get(family, {})
    own = {key: value for key, value in config.items() if key not in names}
    renamed = {names[key]: value for key, value in config.items() if key in names}
    return {**DEFAULTS.get(family, {}), **own, **renamed}
