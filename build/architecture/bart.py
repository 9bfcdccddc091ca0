"""The BART line of encoder-decoders: BART, mBART, Marian, Pegasus."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from build.architecture.config_reader import ConfigReader, projection
from build.architecture.family import Family
from build.architecture.parts import Attention, FeedForward, Norm, NormKind, Positions, Projection
from build.architecture.positions import sinusoids
from build.architecture.seq2seq import (
    CrossAttention,
    DecoderLayer,
    EncoderDecoder,
    EncoderLayer,
    L_co,
    Sinusoids,
    Stack,
)
from build.architecture.views import HEAD, headed, is_table, joined, prefixed, without, without_buffers
from build.checkpoint import Checkpoint, Weight
from build.errors import BadInput, Unsupported

_EPSILON = 1e-5  # of torch's LayerNorm: no configuration names another
_FIRST_ROWS = 2  # of a learned table belong to no position
_SHARED = "model.shared.weight"
_HEAD_BIAS = "final_logits_bias"
_SIDES = ("encoder", "decoder")
_BARE = ("encoder.", "decoder.", "shared.")
_VERSION = r"model\.(encoder|decoder)\.version"


@dataclass(frozen=True)
class _Traits:
    """What differs between the families; a model that norms first also has a last norm."""

    norm_first: bool
    embedding_norm: bool
    learned_positions: bool


_TRAITS = {
    "bart": _Traits(norm_first=False, embedding_norm=True, learned_positions=True),
    "mbart": _Traits(norm_first=True, embedding_norm=True, learned_positions=True),
    "marian": _Traits(norm_first=False, embedding_norm=False, learned_positions=False),
    "pegasus": _Traits(norm_first=True, embedding_norm=False, learned_positions=False),
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
_NAMES: Final = {
    "num_attention_heads": "encoder_attention_heads",
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
}
FAMILIES: Final = {
    "bart": Family(_BART, _NAMES, tokenizer="RobertaTokenizer"),
    "mbart": Family(_BART, _NAMES, tokenizer="MBartTokenizer"),
    "marian": Family(_MARIAN, _NAMES, tokenizer="MarianTokenizer"),
    "pegasus": Family(_BART, _NAMES, tokenizer="PegasusTokenizer"),
}


def describe(config: Mapping[str, Any]) -> EncoderDecoder:
    """The model of a config.json; raises Unsupported or BadInput for what cannot be built."""
    return _Describer(config).architecture()


def view(checkpoint: Checkpoint) -> Checkpoint:
    """Names begin with `model.`, tied tensors have one name, the head has a bias, sinusoids have no table."""
    model = describe(checkpoint.config)
    checkpoint = _biased(prefixed(checkpoint, "model.", _BARE), model.vocab_size)
    checkpoint = without_buffers(checkpoint, _VERSION, (1,))
    tables = {model.encoder.embedding, model.decoder.embedding}
    copies = [f"model.{side}.embed_tokens.weight" for side in _SIDES if len(tables) == 1]
    checkpoint = joined(checkpoint, model.decoder.embedding, copies)
    if model.head.parts[0] == model.decoder.embedding:
        checkpoint = headed(checkpoint, model.decoder.embedding)
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        if isinstance(stack.positions, Sinusoids):
            checkpoint = _without_sinusoids(checkpoint, side, stack.positions.rows, model.encoder.hidden_size)
    return checkpoint


def _without_sinusoids(checkpoint: Checkpoint, side: str, rows: int, size: int) -> Checkpoint:
    """Drops the table of waves that old files store; refuses one with other values, which was learned."""
    name = f"model.{side}.embed_positions.weight"
    stored = checkpoint.weights.get(name)
    if stored is not None and not is_table(stored, sinusoids(rows, size)):
        problem = (
            f"is not the table of waves that a {checkpoint.config['model_type']} of {rows} positions has"
        )
        raise Unsupported(f"checkpoint: {name} {problem}")
    return without(checkpoint, [name])


def _biased(checkpoint: Checkpoint, vocabulary: int) -> Checkpoint:
    """Gives the head a bias [vocab]: files have it as [1, vocab], and a missing one is zero."""
    found = checkpoint.weights.get(_HEAD_BIAS)
    if found is None:
        bias = Weight((vocabulary,), lambda: np.zeros(vocabulary, np.float32))
    else:
        read = found.read
        bias = Weight(found.shape[1:], lambda: read().reshape(-1))
    return replace(checkpoint, weights={**checkpoint.weights, _HEAD_BIAS: bias})


class _Describer:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self._read = read = ConfigReader(config, FAMILIES)
        self._family = str(config["model_type"])
        self._traits = _TRAITS[self._family]
        self._hidden = read.count("d_model")
        self._shared = self._family != "marian" or read.flag("share_encoder_decoder_embeddings")
        self._tied = read.flag("tie_word_embeddings")
        self._vocabularies = {"encoder": read.count("vocab_size"), "decoder": self._target_vocabulary()}

    def architecture(self) -> EncoderDecoder:
        decoder = self._stack("decoder", self._decoder_layer)
        head = decoder.embedding if self._tied else HEAD
        return EncoderDecoder(
            family=self._family,
            norm_first=self._traits.norm_first,
            encoder=self._stack("encoder", self._encoder_layer),
            decoder=decoder,
            head=Projection((head,), (decoder.vocab_size,), self._hidden, (_HEAD_BIAS,)),
        )

    def _stack(self, side: str, layer: Callable[[str], L_co]) -> Stack[L_co]:
        read, at, hidden = self._read, f"model.{side}", self._hidden
        count = read.count("max_position_embeddings")
        learned = Positions(f"{at}.embed_positions.weight", count + _FIRST_ROWS, _FIRST_ROWS)
        traits = self._traits
        return Stack(
            vocab_size=self._vocabularies[side],
            hidden_size=hidden,
            heads=self._heads(side),
            head_dim=hidden // self._heads(side),
            max_positions=count,
            embedding=_SHARED if self._shared else f"{at}.embed_tokens.weight",
            layers=tuple(layer(f"{at}.layers.{i}") for i in range(read.count(f"{side}_layers"))),
            embedding_scale=math.sqrt(hidden) if read.flag("scale_embedding") else 1.0,
            positions=learned if traits.learned_positions else Sinusoids(count),
            embedding_norm=self._norm(f"{at}.layernorm_embedding") if traits.embedding_norm else None,
            final_norm=self._norm(f"{at}.layer_norm") if traits.norm_first else None,
        )

    def _encoder_layer(self, at: str) -> EncoderLayer:
        return EncoderLayer(
            attention=self._attention("encoder", at),
            attention_norm=self._norm(f"{at}.self_attn_layer_norm"),
            ffn=self._feed_forward("encoder", at),
            ffn_norm=self._norm(f"{at}.final_layer_norm"),
        )

    def _decoder_layer(self, at: str) -> DecoderLayer:
        return DecoderLayer(
            attention=self._attention("decoder", at),
            attention_norm=self._norm(f"{at}.self_attn_layer_norm"),
            cross=self._cross(f"{at}.encoder_attn"),
            cross_norm=self._norm(f"{at}.encoder_attn_layer_norm"),
            ffn=self._feed_forward("decoder", at),
            ffn_norm=self._norm(f"{at}.final_layer_norm"),
        )

    def _attention(self, side: str, layer: str) -> Attention:
        at = f"{layer}.self_attn"
        return Attention(
            qkv=self._square(*(f"{at}.{part}_proj" for part in "qkv")),
            output=self._square(f"{at}.out_proj"),
            scale=self._scale(side),
        )

    def _cross(self, at: str) -> CrossAttention:
        return CrossAttention(
            query=self._square(f"{at}.q_proj"),
            key_value=self._square(f"{at}.k_proj", f"{at}.v_proj"),
            output=self._square(f"{at}.out_proj"),
            scale=self._scale("decoder"),
        )

    def _feed_forward(self, side: str, at: str) -> FeedForward:
        size = self._read.count(f"{side}_ffn_dim")
        return FeedForward(
            inner=projection([f"{at}.fc1"], (size,), self._hidden, True),
            outer=projection([f"{at}.fc2"], (self._hidden,), size, True),
            activation=self._read.activation("activation_function"),
        )

    def _square(self, *stems: str) -> Projection:
        return projection(list(stems), (self._hidden,) * len(stems), self._hidden, True)

    def _norm(self, stem: str) -> Norm:
        return Norm(NormKind.LAYER, f"{stem}.weight", self._hidden, _EPSILON, f"{stem}.bias")

    def _scale(self, side: str) -> float:
        return float((self._hidden // self._heads(side)) ** -0.5)

    def _heads(self, side: str) -> int:
        heads = self._read.count(f"{side}_attention_heads")
        if self._hidden % heads:
            raise BadInput(f"config.json: d_model {self._hidden}: must be a multiple of its {heads} heads")
        return heads

    def _target_vocabulary(self) -> int:
        vocabulary = self._read.count("vocab_size")
        if self._family != "marian":
            return vocabulary
        target = self._read.count("decoder_vocab_size", null=vocabulary)
        if self._shared and target != vocabulary:
            raise BadInput(
                f"config.json: decoder_vocab_size: {target}, must be vocab_size {vocabulary} where"
                " share_encoder_decoder_embeddings is true"
            )
        return target
