"""config.json of the recipes' models, from the dimensions that the recipes publish."""

from __future__ import annotations

from typing import Any

from build.shape import Shape

FAMILIES = {
    "bart-base": "bart",
    "bart-large-cnn": "bart",
    "distilgpt2": "gpt2",
    "flan-t5-base": "t5",
    "gemma3-270m": "gemma3_text",
    "gpt2": "gpt2",
    "llama-3.2-1b-instruct": "llama",
    "opus-mt-en-de": "marian",
    "opus-mt-en-fr": "marian",
    "qwen2.5-0.5b-instruct": "qwen2",
    "qwen3-0.6b": "qwen3",
    "smollm2": "llama",
    "t5-small": "t5",
}


def config(family: str, shape: Shape) -> dict[str, Any]:
    if family == "gpt2":
        return _gpt2(shape)
    if family == "t5":
        return _t5(shape)
    if family == "gemma3_text":
        return _llama(family, shape) | {"hidden_activation": "gelu_pytorch_tanh"}
    return _bart(family, shape) if family in ("bart", "marian") else _llama(family, shape)


def _llama(family: str, shape: Shape) -> dict[str, Any]:
    return {
        "model_type": family,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.max_positions,
        "tie_word_embeddings": shape.tied,
    }


def _gpt2(shape: Shape) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": shape.vocab_size,
        "n_embd": shape.hidden_size,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_inner": shape.intermediate_size,
        "n_positions": shape.max_positions,
    }


def _bart(family: str, shape: Shape) -> dict[str, Any]:
    sides = {
        f"{side}_{key}": value
        for side, layers in (("encoder", shape.encoder_layers), ("decoder", shape.layers))
        for key, value in (
            ("layers", layers),
            ("attention_heads", shape.heads),
            ("ffn_dim", shape.intermediate_size),
        )
    }
    return {
        "model_type": family,
        "is_encoder_decoder": True,
        "vocab_size": shape.vocab_size,
        "d_model": shape.hidden_size,
        "max_position_embeddings": shape.max_positions,
        **sides,
    }


def _t5(shape: Shape) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": shape.vocab_size,
        "d_model": shape.hidden_size,
        "d_kv": shape.head_dim,
        "d_ff": shape.intermediate_size,
        "num_layers": shape.encoder_layers,
        "num_decoder_layers": shape.layers,
        "num_heads": shape.heads,
        "feed_forward_proj": "gated-gelu" if shape.gated else "relu",
        "tie_word_embeddings": shape.tied,
    }
