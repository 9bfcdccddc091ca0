"""The Gemma 3 line, text alone.

Norms multiply by 1 + weight, which the view adds; every block is normed at both ends; most layers see a
window of the past, with separate rotary frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from build.architecture import llama
from build.architecture.config_reader import FULL, SLIDING, ConfigReader, projection
from build.architecture.family import LLAMA_LAYER, ROTARY, Family, Layout
from build.architecture.parts import Architecture, Attention, FeedForward, Layer, Norm, NormKind, Projection
from build.architecture.positions import inverse_frequencies
from build.architecture.views import HEAD, shifted
from build.checkpoint import Checkpoint
from build.errors import Unsupported

_GEMMA3: Final = ROTARY | {
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
_GEMMA3_LAYER = LLAMA_LAYER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


FAMILIES: Final = {
    "gemma3_text": Family(
        _GEMMA3,
        tokenizer="GemmaTokenizer",
        gguf={"gemma3": Layout("gemma3_text", _GEMMA3_LAYER, norm_shift=1.0)},
    )
}
_UNSUPPORTED = ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention")


def view(checkpoint: Checkpoint) -> Checkpoint:
    """Names are as in the Llama line, and norms multiply by their weight alone."""
    checkpoint = llama.view(checkpoint, FAMILIES)
    weights = {
        name: shifted(weight, 1.0) if name.endswith("norm.weight") else weight
        for name, weight in checkpoint.weights.items()
    }
    return replace(checkpoint, weights=weights)


def describe(config: Mapping[str, Any]) -> Architecture:
    """The model of a config.json; raises Unsupported or BadInput for what cannot be built."""
    read = ConfigReader(config, FAMILIES)
    for key in _UNSUPPORTED:
        if value := read.config[key]:
            raise Unsupported(f"config.json: {key}: {value!r} is not supported")
    return _Describer(read).architecture()


class _Describer:
    def __init__(self, read: ConfigReader) -> None:
        self._read = read
        self._hidden = read.count("hidden_size")
        self._heads, self._kv_heads, self._head_dim = read.heads()
        self._epsilon = read.number("rms_norm_eps")
        self._kinds = self._layer_kinds(read.count("num_hidden_layers"))
        self._rotary = {
            kind: inverse_frequencies(_rope(read.config, kind), self._head_dim) for kind in _THETAS
        }

    def architecture(self) -> Architecture:
        read = self._read
        vocab = read.count("vocab_size")
        tied = read.flag("tie_word_embeddings")
        return Architecture(
            family="gemma3_text",
            vocab_size=vocab,
            hidden_size=self._hidden,
            heads=self._heads,
            kv_heads=self._kv_heads,
            head_dim=self._head_dim,
            max_positions=read.count("max_position_embeddings"),
            tied_head=tied,
            embedding=llama.EMBEDDING,
            embedding_scale=self._hidden**0.5,
            wide=True,  # the residual stream of the smallest, of 270M, reaches 100 000
            layers=tuple(self._layer(i) for i in range(len(self._kinds))),
            final_norm=self._norm("model.norm", self._hidden),
            head=Projection((llama.EMBEDDING if tied else HEAD,), (vocab,), self._hidden),
        )

    def _layer(self, index: int) -> Layer:
        at = f"model.layers.{index}"
        return Layer(
            input_norm=self._norm(f"{at}.input_layernorm", self._hidden),
            attention=self._attention(f"{at}.self_attn", self._kinds[index]),
            output_norm=self._norm(f"{at}.post_attention_layernorm", self._hidden),
            ffn_norm=self._norm(f"{at}.pre_feedforward_layernorm", self._hidden),
            ffn=self._feed_forward(f"{at}.mlp"),
            ffn_output_norm=self._norm(f"{at}.post_feedforward_layernorm", self._hidden),
        )

    def _layer_kinds(self, layers: int) -> list[str]:
        kinds = self._read.kinds(layers)
        if kinds is not None:
            return kinds
        pattern = self._read.count("sliding_window_pattern")
        return [SLIDING if (index + 1) % pattern else FULL for index in range(layers)]

    def _attention(self, at: str, kind: str) -> Attention:
        q_rows, kv_rows = self._heads * self._head_dim, self._kv_heads * self._head_dim
        biased = self._read.flag("attention_bias")
        stems = [f"{at}.{part}_proj" for part in "qkv"]
        return Attention(
            qkv=projection(stems, (q_rows, kv_rows, kv_rows), self._hidden, biased),
            output=projection([f"{at}.o_proj"], (self._hidden,), q_rows, biased),
            scale=self._read.number("query_pre_attn_scalar") ** -0.5,
            q_norm=self._norm(f"{at}.q_norm", self._head_dim),
            k_norm=self._norm(f"{at}.k_norm", self._head_dim),
            rotary=self._rotary[kind],
            window=self._read.count("sliding_window") if kind == SLIDING else None,
        )

    def _feed_forward(self, at: str) -> FeedForward:
        size = self._read.count("intermediate_size")
        return FeedForward(
            inner=projection([f"{at}.gate_proj", f"{at}.up_proj"], (size, size), self._hidden, biased=False),
            outer=projection([f"{at}.down_proj"], (self._hidden,), size, biased=False),
            activation=self._read.activation("hidden_activation"),
        )

    def _norm(self, stem: str, size: int) -> Norm:
        return Norm(NormKind.RMS, f"{stem}.weight", size, self._epsilon)


# A kind of layer, and the key of its base before transformers 5.
_THETAS = {FULL: "rope_theta", SLIDING: "rope_local_base_freq"}


def _rope(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The rotary settings of one kind of layer; before transformers 5 only global layers were scaled."""
    own = (config["rope_parameters"] or {}).get(kind) or {}
    scaling = (config["rope_scaling"] or {}) if kind == FULL else {}
    parameters = {"rope_theta": config[_THETAS[kind]], **own, **scaling}
    return {**config, "rope_scaling": None, "rope_parameters": parameters}
