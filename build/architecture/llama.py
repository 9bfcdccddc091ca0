"""The Llama line: Llama, SmolLM2, Mistral, Qwen2, Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from build.architecture.config_reader import FULL, SLIDING, ConfigReader, projection
from build.architecture.family import ROTARY, Family, Layout
from build.architecture.parts import (
    Activation,
    Architecture,
    Attention,
    FeedForward,
    Layer,
    Norm,
    NormKind,
    Projection,
)
from build.architecture.positions import inverse_frequencies
from build.architecture.views import HEAD, headed, prefixed, without_buffers
from build.checkpoint import Checkpoint
from build.errors import BadInput, Unsupported

EMBEDDING = "model.embed_tokens.weight"
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
    **ROTARY,
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
_LLAMA_BIASED = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_KV_HEADS = frozenset({"num_key_value_heads"})
FAMILIES: Final = {
    "llama": Family(
        _LLAMA, gguf={"llama": Layout("llama", interleaved=True, rope_factors=True, biased=_LLAMA_BIASED)}
    ),
    "mistral": Family(_MISTRAL, tokenizer="TokenizersBackend", always_tokenizer=True),
    "qwen2": Family(
        _QWEN2,
        nullable=_KV_HEADS,
        tokenizer="Qwen2Tokenizer",
        always_tokenizer=True,
        gguf={"qwen2": Layout("qwen2")},
    ),
    "qwen3": Family(
        _QWEN2 | {"head_dim": 128, "attention_bias": False},
        nullable=_KV_HEADS,
        tokenizer="Qwen2Tokenizer",
        gguf={"qwen3": Layout("qwen3")},
    ),
}
_BIASED = ("llama", "qwen3")  # where the file says so; qwen2 has biases of q, k and v always
_BARE = ("embed_tokens.", "layers.", "norm.")
_FREQUENCIES = r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"


def view(checkpoint: Checkpoint, families: Mapping[str, Family] = FAMILIES) -> Checkpoint:
    """Names begin with `model.`; a tied head is kept if it differs; stored rotary frequencies are dropped."""
    read = ConfigReader(checkpoint.config, families)
    head_dim = read.count("head_dim", null=read.count("hidden_size") // read.count("num_attention_heads"))
    checkpoint = prefixed(checkpoint, "model.", [*_BARE, "rotary_emb."])
    checkpoint = without_buffers(checkpoint, _FREQUENCIES, (head_dim // 2,))
    return headed(checkpoint, EMBEDDING) if read.flag("tie_word_embeddings") else checkpoint


def describe(config: Mapping[str, Any]) -> Architecture:
    """The model of a config.json; raises Unsupported or BadInput for what cannot be built."""
    read = ConfigReader(config, FAMILIES)
    if read.activation("hidden_act") is not Activation.SILU:
        raise Unsupported(
            f"config.json: hidden_act: activation {read.config['hidden_act']!r} is not supported: silu is"
        )
    return _Describer(read).architecture()


class _Describer:
    def __init__(self, read: ConfigReader) -> None:
        self._read = read
        self._family = str(read.config["model_type"])
        self._hidden = read.count("hidden_size")
        self._heads, self._kv_heads, self._head_dim = read.heads()
        self._epsilon = read.number("rms_norm_eps")
        self._layers = read.count("num_hidden_layers")
        self._kinds = self._layer_kinds()
        self._rotary = inverse_frequencies(read.config, self._head_dim)

    def architecture(self) -> Architecture:
        read = self._read
        vocab = read.count("vocab_size")
        tied = read.flag("tie_word_embeddings")
        return Architecture(
            family=self._family,
            vocab_size=vocab,
            hidden_size=self._hidden,
            heads=self._heads,
            kv_heads=self._kv_heads,
            head_dim=self._head_dim,
            max_positions=read.count("max_position_embeddings"),
            tied_head=tied,
            embedding=EMBEDDING,
            layers=tuple(self._layer(i) for i in range(self._layers)),
            final_norm=self._norm("model.norm", self._hidden),
            head=Projection((EMBEDDING if tied else HEAD,), (vocab,), self._hidden),
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
        biased = self._family in _BIASED and self._read.flag("attention_bias")
        qkv_bias = self._family == "qwen2" or biased
        normed = self._family == "qwen3"
        return Attention(
            qkv=projection(
                [f"{at}.{part}_proj" for part in "qkv"], (q_rows, kv_rows, kv_rows), self._hidden, qkv_bias
            ),
            output=projection([f"{at}.o_proj"], (self._hidden,), q_rows, biased),
            scale=self._head_dim**-0.5,
            q_norm=self._norm(f"{at}.q_norm", self._head_dim) if normed else None,
            k_norm=self._norm(f"{at}.k_norm", self._head_dim) if normed else None,
            rotary=self._rotary,
            window=self._read.count("sliding_window") if self._kinds[index] == SLIDING else None,
        )

    def _feed_forward(self, at: str) -> FeedForward:
        size = self._read.count("intermediate_size")
        biased = self._family == "llama" and self._read.flag("mlp_bias")
        stems = [f"{at}.{part}_proj" for part in ("gate", "up")]
        return FeedForward(
            inner=projection(stems, (size, size), self._hidden, biased),
            outer=projection([f"{at}.down_proj"], (self._hidden,), size, biased),
            activation=self._read.activation("hidden_act"),
        )

    def _norm(self, stem: str, size: int) -> Norm:
        return Norm(NormKind.RMS, f"{stem}.weight", size, self._epsilon)

    def _layer_kinds(self) -> list[str]:
        """The kind of each layer: all slide in Mistral, or none; in Qwen the config says which."""
        read, layers = self._read, self._layers
        if self._family == "llama":
            return [FULL] * layers
        slides = read.config["sliding_window"] is not None
        if self._family == "mistral":
            return [SLIDING if slides else FULL] * layers
        slides = slides and read.flag("use_sliding_window")
        kinds = read.kinds(layers)
        if kinds is None:
            first = read.index("max_window_layers") if slides else layers
            return [SLIDING if index >= first else FULL for index in range(layers)]
        if SLIDING in kinds and not slides:
            raise BadInput("config.json: layer_types: has sliding layers, use_sliding_window is false")
        return kinds
