"""The Llama line: Llama, SmolLM2, Mistral, Qwen2, Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from build.architecture.config_reader import ConfigReader, projection
from build.architecture.parts import Architecture, Attention, FeedForward, Layer, Norm, NormKind, Projection
from build.architecture.rotary import inverse_frequencies
from build.errors import BadInput, Unsupported

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_SLIDING = ("mistral", "qwen2", "qwen3")


def describe(config: Mapping[str, Any]) -> Architecture:
    """Raises Unsupported or BadInput for what cannot be built."""
    if config.get("hidden_act", "silu") != "silu":
        raise Unsupported(f"activation {config['hidden_act']!r} is not supported: silu is")
    return _Adapter(config).architecture()


class _Adapter:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self._read = read = ConfigReader(config)
        self._family = str(config["model_type"])
        self._hidden = read.count("hidden_size")
        self._heads = read.count("num_attention_heads")
        self._kv_heads = read.count("num_key_value_heads", self._heads)
        self._head_dim = read.count("head_dim", self._hidden // self._heads)
        if self._heads % self._kv_heads or self._head_dim % 2:
            raise BadInput(
                f"config.json: {self._heads} heads over {self._kv_heads} kv heads of"
                f" {self._head_dim}: heads must be a multiple and the size even"
            )
        self._epsilon = read.number("rms_norm_eps", 1e-6)
        self._rotary = inverse_frequencies(config, self._head_dim)

    def architecture(self) -> Architecture:
        read = self._read
        vocab = read.count("vocab_size")
        tied = read.flag("tie_word_embeddings")
        embedding = "model.embed_tokens.weight"
        return Architecture(
            family=self._family,
            vocab_size=vocab,
            hidden_size=self._hidden,
            heads=self._heads,
            kv_heads=self._kv_heads,
            head_dim=self._head_dim,
            max_positions=read.count("max_position_embeddings"),
            tied_head=tied,
            embedding=embedding,
            layers=tuple(self._layer(i) for i in range(read.count("num_hidden_layers"))),
            final_norm=self._norm("model.norm", self._hidden),
            head=Projection((embedding if tied else "lm_head.weight",), (vocab,), self._hidden),
        )

    def _layer(self, index: int) -> Layer:
        at = f"model.layers.{index}"
        return Layer(
            input_norm=self._norm(f"{at}.input_layernorm", self._hidden),
            attention=self._attention(index, f"{at}.self_attn"),
            ffn_norm=self._norm(f"{at}.post_attention_layernorm", self._hidden),
            ffn=self._feed_forward(f"{at}.mlp"),
        )

    def _attention(self, index: int, at: str) -> Attention:
        q_rows, kv_rows = self._heads * self._head_dim, self._kv_heads * self._head_dim
        biased = self._read.flag("attention_bias")
        qkv_bias = self._family == "qwen2" or biased
        out_bias = self._family != "qwen2" and biased
        normed = self._family == "qwen3"
        return Attention(
            qkv=projection(
                [f"{at}.{part}_proj" for part in "qkv"], (q_rows, kv_rows, kv_rows), self._hidden, qkv_bias
            ),
            output=projection([f"{at}.o_proj"], (self._hidden,), q_rows, out_bias),
            scale=self._head_dim**-0.5,
            q_norm=self._norm(f"{at}.q_norm", self._head_dim) if normed else None,
            k_norm=self._norm(f"{at}.k_norm", self._head_dim) if normed else None,
            rotary=self._rotary,
            window=self._window(index),
        )

    def _feed_forward(self, at: str) -> FeedForward:
        size, biased = self._read.count("intermediate_size"), self._read.flag("mlp_bias")
        stems = [f"{at}.{part}_proj" for part in ("gate", "up")]
        return FeedForward(
            inner=projection(stems, (size, size), self._hidden, biased),
            outer=projection([f"{at}.down_proj"], (self._hidden,), size, biased),
            activation=self._read.activation("hidden_act", "silu"),
        )

    def _norm(self, stem: str, size: int) -> Norm:
        return Norm(NormKind.RMS, f"{stem}.weight", size, self._epsilon)

    def _window(self, index: int) -> int | None:
        read = self._read
        if read.config.get("sliding_window") is None or self._family not in _SLIDING:
            return None
        if self._family != "mistral" and not read.flag("use_sliding_window"):
            return None
        types = read.config.get("layer_types")
        if types is None:
            slides = index >= read.config.get("max_window_layers", 0)
        else:
            slides = types[index] == "sliding_attention"
        return read.count("sliding_window") if slides else None
