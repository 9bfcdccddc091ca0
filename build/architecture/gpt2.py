"""The GPT-2 line: GPT-2 of every size, DistilGPT-2.

Checkpoints hold the transposes of linear layers, q, k and v as one, and go by names with and without
`transformer.`; the view has the names and shapes that other families use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from build.architecture.config_reader import ConfigReader, projection
from build.architecture.family import Family
from build.architecture.parts import (
    Architecture,
    Attention,
    FeedForward,
    Layer,
    Norm,
    NormKind,
    Positions,
    Projection,
)
from build.architecture.views import HEAD, headed, part, prefixed, transposed, without_buffers
from build.checkpoint import Checkpoint, Weight
from build.errors import BadInput, Unsupported

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
_NAMES: Final = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
FAMILIES: Final = {"gpt2": Family(_GPT2, _NAMES, tokenizer="GPT2Tokenizer")}
_PREFIX = "transformer."
_BARE = ("wte.", "wpe.", "h.", "ln_f.")
_EMBEDDING = f"{_PREFIX}wte.weight"
_MASK, _MASKED = (rf"transformer\.h\.\d+\.attn\.{name}" for name in ("bias", "masked_bias"))
_TRANSPOSED = (".c_proj.weight", ".c_fc.weight")


def view(checkpoint: Checkpoint) -> Checkpoint:
    """Tensors are named and shaped as `describe` does; the causal masks of old files are dropped."""
    read = ConfigReader(checkpoint.config, FAMILIES)
    positions = read.count("n_positions")
    checkpoint = prefixed(checkpoint, _PREFIX, _BARE)
    checkpoint = without_buffers(checkpoint, _MASK, (1, 1, positions, positions))
    checkpoint = without_buffers(checkpoint, _MASKED, ())
    if read.flag("tie_word_embeddings"):
        checkpoint = headed(checkpoint, _EMBEDDING)
    weights = dict(entry for name, weight in checkpoint.weights.items() for entry in _viewed(name, weight))
    return replace(checkpoint, weights=weights)


def _viewed(name: str, weight: Weight) -> Iterator[tuple[str, Weight]]:
    stem, _, leaf = name.rpartition(".")
    if stem.endswith(".c_attn"):
        for index, letter in enumerate("qkv"):
            cut = part(weight, index, 3)
            yield f"{stem}_{letter}.{leaf}", transposed(cut) if leaf == "weight" else cut
    else:
        yield name, transposed(weight) if name.endswith(_TRANSPOSED) else weight


def describe(config: Mapping[str, Any]) -> Architecture:
    """The model of a config.json; raises Unsupported or BadInput for what cannot be built."""
    read = ConfigReader(config, FAMILIES)
    if read.flag("add_cross_attention"):
        raise Unsupported("config.json: add_cross_attention: a GPT-2 that reads an encoder is not supported")
    return _Describer(read).architecture()


class _Describer:
    def __init__(self, read: ConfigReader) -> None:
        self._read = read
        self._hidden = read.count("n_embd")
        self._heads = read.count("n_head")
        if self._hidden % self._heads:
            raise BadInput(f"config.json: n_embd {self._hidden}, must be a multiple of n_head {self._heads}")
        self._head_dim = self._hidden // self._heads
        self._epsilon = read.number("layer_norm_epsilon")

    def architecture(self) -> Architecture:
        read = self._read
        vocab, positions = read.count("vocab_size"), read.count("n_positions")
        tied = read.flag("tie_word_embeddings")
        return Architecture(
            family="gpt2",
            vocab_size=vocab,
            hidden_size=self._hidden,
            heads=self._heads,
            kv_heads=self._heads,
            head_dim=self._head_dim,
            max_positions=positions,
            tied_head=tied,
            embedding=_EMBEDDING,
            layers=tuple(self._layer(i) for i in range(read.count("n_layer"))),
            final_norm=self._norm(f"{_PREFIX}ln_f"),
            head=Projection((_EMBEDDING if tied else HEAD,), (vocab,), self._hidden),
            positions=Positions(f"{_PREFIX}wpe.weight", positions),
        )

    def _layer(self, index: int) -> Layer:
        at = f"{_PREFIX}h.{index}"
        return Layer(
            input_norm=self._norm(f"{at}.ln_1"),
            attention=self._attention(index, f"{at}.attn"),
            ffn_norm=self._norm(f"{at}.ln_2"),
            ffn=self._feed_forward(f"{at}.mlp"),
        )

    def _attention(self, index: int, at: str) -> Attention:
        hidden = self._hidden
        return Attention(
            qkv=projection([f"{at}.c_attn_{part}" for part in "qkv"], (hidden,) * 3, hidden, biased=True),
            output=projection([f"{at}.c_proj"], (hidden,), hidden, biased=True),
            scale=self._scale(index),
        )

    def _scale(self, index: int) -> float:
        """`reorder_and_upcast_attn` is about training in half precision: it changes no result."""
        scale = self._head_dim**-0.5 if self._read.flag("scale_attn_weights") else 1.0
        by_layer = self._read.flag("scale_attn_by_inverse_layer_idx")
        return scale / (index + 1) if by_layer else scale

    def _feed_forward(self, at: str) -> FeedForward:
        size = self._read.count("n_inner", 4 * self._hidden)
        return FeedForward(
            inner=projection([f"{at}.c_fc"], (size,), self._hidden, biased=True),
            outer=projection([f"{at}.c_proj"], (self._hidden,), size, biased=True),
            activation=self._read.activation("activation_function"),
        )

    def _norm(self, stem: str) -> Norm:
        return Norm(NormKind.LAYER, f"{stem}.weight", self._hidden, self._epsilon, f"{stem}.bias")
