"""The Gemma 3 line, text alone.

Norms multiply by 1 + weight, which the view adds; every block is normed at both ends; most layers see a
window of the past and have rotary frequencies of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from build.architecture.config_reader import ConfigReader, projection
from build.architecture.parts import Architecture, Attention, FeedForward, Layer, Norm, NormKind, Projection
from build.architecture.rotary import inverse_frequencies
from build.architecture.view import shifted
from build.checkpoint import Checkpoint
from build.errors import BadInput, Unsupported

FAMILIES = ("gemma3_text",)
_UNSUPPORTED = ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention")
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_PATTERN = 6  # one layer in so many is global, where the config does not say


def view(checkpoint: Checkpoint) -> Checkpoint:
    """The same tensors, with norms that multiply by their weight."""
    weights = {
        name: shifted(weight, 1.0) if name.endswith("norm.weight") else weight
        for name, weight in checkpoint.weights.items()
    }
    return replace(checkpoint, weights=weights)


def describe(config: Mapping[str, Any]) -> Architecture:
    """Raises Unsupported or BadInput for what cannot be built."""
    for key in _UNSUPPORTED:
        if config.get(key):
            raise Unsupported(f"config.json: {key}: {config[key]!r} is not supported")
    return _Adapter(config).architecture()


class _Adapter:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self._read = read = ConfigReader(config)
        self._hidden = read.count("hidden_size")
        self._heads = read.count("num_attention_heads")
        self._kv_heads = read.count("num_key_value_heads", self._heads)
        self._head_dim = read.count("head_dim", 256)
        if self._heads % self._kv_heads or self._head_dim % 2:
            raise BadInput(
                f"config.json: {self._heads} heads over {self._kv_heads} kv heads of"
                f" {self._head_dim}: heads must be a multiple and the size even"
            )
        self._epsilon = read.number("rms_norm_eps", 1e-6)
        self._rotary = {kind: inverse_frequencies(_rope(config, kind), self._head_dim) for kind in _THETAS}

    def architecture(self) -> Architecture:
        read = self._read
        vocab = read.count("vocab_size")
        tied = read.flag("tie_word_embeddings", default=True)
        embedding = "model.embed_tokens.weight"
        return Architecture(
            family="gemma3_text",
            vocab_size=vocab,
            hidden_size=self._hidden,
            heads=self._heads,
            kv_heads=self._kv_heads,
            head_dim=self._head_dim,
            max_positions=read.count("max_position_embeddings", 131072),
            tied_head=tied,
            embedding=embedding,
            embedding_scale=self._hidden**0.5,
            wide=True,  # the residual stream of the smallest, of 270M, reaches 100 000
            layers=tuple(self._layer(i) for i in range(read.count("num_hidden_layers"))),
            final_norm=self._norm("model.norm", self._hidden),
            head=Projection((embedding if tied else "lm_head.weight",), (vocab,), self._hidden),
        )

    def _layer(self, index: int) -> Layer:
        at = f"model.layers.{index}"
        return Layer(
            input_norm=self._norm(f"{at}.input_layernorm", self._hidden),
            attention=self._attention(f"{at}.self_attn", self._kind(index)),
            output_norm=self._norm(f"{at}.post_attention_layernorm", self._hidden),
            ffn_norm=self._norm(f"{at}.pre_feedforward_layernorm", self._hidden),
            ffn=self._feed_forward(f"{at}.mlp"),
            ffn_output_norm=self._norm(f"{at}.post_feedforward_layernorm", self._hidden),
        )

    def _kind(self, index: int) -> str:
        types = self._read.config.get("layer_types")
        if types is not None:
            return str(types[index])
        pattern = self._read.count("sliding_window_pattern", _PATTERN)
        return _LOCAL if (index + 1) % pattern else _GLOBAL

    def _attention(self, at: str, kind: str) -> Attention:
        q_rows, kv_rows = self._heads * self._head_dim, self._kv_heads * self._head_dim
        biased = self._read.flag("attention_bias")
        stems = [f"{at}.{part}_proj" for part in "qkv"]
        return Attention(
            qkv=projection(stems, (q_rows, kv_rows, kv_rows), self._hidden, biased),
            output=projection([f"{at}.o_proj"], (self._hidden,), q_rows, biased),
            scale=self._read.number("query_pre_attn_scalar", 256) ** -0.5,
            q_norm=self._norm(f"{at}.q_norm", self._head_dim),
            k_norm=self._norm(f"{at}.k_norm", self._head_dim),
            rotary=self._rotary[kind],
            window=self._read.count("sliding_window", 4096) if kind == _LOCAL else None,
        )

    def _feed_forward(self, at: str) -> FeedForward:
        size = self._read.count("intermediate_size")
        return FeedForward(
            inner=projection([f"{at}.gate_proj", f"{at}.up_proj"], (size, size), self._hidden, biased=False),
            outer=projection([f"{at}.down_proj"], (self._hidden,), size, biased=False),
            activation=self._read.activation("hidden_activation", "gelu_pytorch_tanh"),
        )

    def _norm(self, stem: str, size: int) -> Norm:
        return Norm(NormKind.RMS, f"{stem}.weight", size, self._epsilon)


# A kind of layer, the key of its base before transformers 5, and the base where none is given.
_THETAS = {_GLOBAL: ("rope_theta", 1e6), _LOCAL: ("rope_local_base_freq", 1e4)}


def _rope(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The settings of one kind of layer: only global ones were scaled before transformers 5."""
    key, default = _THETAS[kind]
    scaling = config.get("rope_scaling") if kind == _GLOBAL else None
    own = (config.get("rope_parameters") or {}).get(kind) or {}
    theta = config.get(key)
    return {"rope_parameters": {"rope_theta": default if theta is None else theta, **(scaling or {}), **own}}
