"""The T5 line of encoder-decoders: T5, T5 v1.1 and Flan-T5, mT5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from build.architecture.config_reader import ConfigReader, activation, projection
from build.architecture.family import Family
from build.architecture.parts import Attention, FeedForward, Norm, NormKind, Projection
from build.architecture.seq2seq import (
    CrossAttention,
    DecoderLayer,
    EncoderDecoder,
    EncoderLayer,
    L_co,
    RelativeBias,
    Stack,
)
from build.architecture.views import HEAD, has_own_head, joined, without
from build.checkpoint import Checkpoint
from build.errors import BadInput, Unsupported

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
_NAMES: Final = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
FAMILIES: Final = {
    "t5": Family(_T5, _NAMES, tokenizer="T5Tokenizer"),
    "mt5": Family(_MT5, _NAMES, tokenizer="T5Tokenizer"),
}
# Relative positions have no end: the caches must have one.
MAX_POSITIONS = 2048
_SHARED = "shared.weight"
_OWN_HEAD = "own_head"  # a key of ours: whether the view has found a head that differs from the embedding
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def describe(config: Mapping[str, Any]) -> EncoderDecoder:
    """The model of a config.json; raises Unsupported or BadInput for what cannot be built."""
    return _Describer(config).architecture()


def view(checkpoint: Checkpoint) -> Checkpoint:
    """Tied tensors have one name; the bias of cross-attention in old files, never used, is dropped."""
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    checkpoint = without(joined(checkpoint, _SHARED, copies), [_UNUSED])
    own = has_own_head(checkpoint, _SHARED)
    if not own:
        checkpoint = joined(checkpoint, _SHARED, [HEAD])
    return replace(checkpoint, config={**checkpoint.config, _OWN_HEAD: own})


def _scales_outputs(read: ConfigReader) -> bool:
    """Whether the head's input is scaled: in T5, but not in v1.1 (head untied, or a key says so) and mT5."""
    if read.config["model_type"] != "t5":
        return False
    scales = read.config["scale_decoder_outputs"] is not None
    return read.flag("scale_decoder_outputs") if scales else read.config["tie_word_embeddings"] is not False


class _Describer:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self._read = read = ConfigReader(config, FAMILIES)
        self._family = str(config["model_type"])
        self._hidden = read.count("d_model")
        self._heads = read.count("num_heads")
        self._head_dim = read.count("d_kv")
        self._vocab = read.count("vocab_size")

    def architecture(self) -> EncoderDecoder:
        scaled = _scales_outputs(self._read)
        layers = self._read.count("num_layers")
        return EncoderDecoder(
            family=self._family,
            norm_first=True,
            encoder=self._stack("encoder", layers, self._encoder_layer),
            decoder=self._stack(
                "decoder", self._read.count("num_decoder_layers", null=layers), self._decoder_layer
            ),
            head=Projection((_SHARED if self._tied() else HEAD,), (self._vocab,), self._hidden),
            head_scale=self._hidden**-0.5 if scaled else 1.0,
        )

    def _tied(self) -> bool:
        """What the view has found; before a view, v1.1 and mT5 count as untied, whatever the file says."""
        own = self._read.config.get(_OWN_HEAD)
        return _scales_outputs(self._read) if own is None else not own

    def _stack(self, side: str, count: int, layer: Callable[[str], L_co]) -> Stack[L_co]:
        return Stack(
            vocab_size=self._vocab,
            hidden_size=self._hidden,
            heads=self._heads,
            head_dim=self._head_dim,
            max_positions=MAX_POSITIONS,
            embedding=_SHARED,
            layers=tuple(layer(f"{side}.block.{index}.layer") for index in range(count)),
            relative=self._relative(side),
            final_norm=self._norm(f"{side}.final_layer_norm"),
        )

    def _relative(self, side: str) -> RelativeBias:
        buckets = self._read.count("relative_attention_num_buckets")
        furthest = self._read.count("relative_attention_max_distance")
        if buckets < 4 or furthest <= buckets // 2:
            raise BadInput(
                f"config.json: relative_attention_num_buckets: {buckets}, must be at least 4 and less than"
                f" twice relative_attention_max_distance {furthest}"
            )
        table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return RelativeBias(table, buckets, furthest, bidirectional=side == "encoder")

    def _encoder_layer(self, at: str) -> EncoderLayer:
        return EncoderLayer(
            attention=self._attention(f"{at}.0.SelfAttention"),
            attention_norm=self._norm(f"{at}.0.layer_norm"),
            ffn=self._feed_forward(f"{at}.1.DenseReluDense"),
            ffn_norm=self._norm(f"{at}.1.layer_norm"),
        )

    def _decoder_layer(self, at: str) -> DecoderLayer:
        return DecoderLayer(
            attention=self._attention(f"{at}.0.SelfAttention"),
            attention_norm=self._norm(f"{at}.0.layer_norm"),
            cross=self._cross(f"{at}.1.EncDecAttention"),
            cross_norm=self._norm(f"{at}.1.layer_norm"),
            ffn=self._feed_forward(f"{at}.2.DenseReluDense"),
            ffn_norm=self._norm(f"{at}.2.layer_norm"),
        )

    def _attention(self, at: str) -> Attention:
        """Scores are not scaled: the initialisation of q accounts for it."""
        return Attention(self._heads_of(at, "qkv"), self._output(at), scale=1.0)

    def _cross(self, at: str) -> CrossAttention:
        return CrossAttention(self._heads_of(at, "q"), self._heads_of(at, "kv"), self._output(at), scale=1.0)

    def _heads_of(self, at: str, parts: str) -> Projection:
        rows = (self._heads * self._head_dim,) * len(parts)
        return projection([f"{at}.{part}" for part in parts], rows, self._hidden, False)

    def _output(self, at: str) -> Projection:
        return projection([f"{at}.o"], (self._hidden,), self._heads * self._head_dim, False)

    def _feed_forward(self, at: str) -> FeedForward:
        read, size = self._read, self._read.count("d_ff")
        kind = str(read.config["feed_forward_proj"])
        gate, _, name = kind.rpartition("-")
        if gate not in ("", "gated"):
            raise Unsupported(
                f"config.json: feed_forward_proj: {kind!r} is not supported: NAME and gated-NAME are"
            )
        stems = [f"{at}.wi_0", f"{at}.wi_1"] if gate else [f"{at}.wi"]
        return FeedForward(
            inner=projection(stems, (size,) * len(stems), self._hidden, False),
            outer=projection([f"{at}.wo"], (self._hidden,), size, False),
            # T5 v1.1 means the approximation by its gated-gelu.
            activation=activation("feed_forward_proj", "gelu_new" if kind == "gated-gelu" else name),
        )

    def _norm(self, stem: str) -> Norm:
        epsilon = self._read.number("layer_norm_epsilon")
        return Norm(NormKind.RMS, f"{stem}.weight", self._hidden, epsilon)
