"""What a decoder of the Llama line is made of, read from config.json: one adapter for the family.

Dialects, the reference and the passes see this description only, never config.json. A product that
a dialect may fuse (q, k, v; gate, up) is one Projection of several parts, its rows stacked in order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from build.errors import BadInput, Unsupported

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Projection:
    """y = x W^T + b, W [sum of rows, columns]; `biases` is empty or as long as `parts`."""

    parts: tuple[str, ...]
    rows: tuple[int, ...]
    columns: int
    biases: tuple[str, ...] = ()

    def tensors(self) -> dict[str, tuple[int, ...]]:
        weights = zip(self.parts, self.rows, strict=True)
        biases = zip(self.biases, self.rows, strict=bool(self.biases))
        return {name: (rows, self.columns) for name, rows in weights} | {b: (rows,) for b, rows in biases}


@dataclass(frozen=True)
class Layer:
    """Tensor names of one block; `window` is how many positions, itself included, a token sees."""

    input_norm: str
    qkv: Projection
    q_norm: str | None
    k_norm: str | None
    output: Projection
    post_norm: str
    gate_up: Projection
    down: Projection
    window: int | None

    def tensors(self, hidden_size: int, head_dim: int) -> dict[str, tuple[int, ...]]:
        norms = {self.input_norm: (hidden_size,), self.post_norm: (hidden_size,)}
        norms |= {norm: (head_dim,) for norm in (self.q_norm, self.k_norm) if norm is not None}
        products = (self.qkv, self.output, self.gate_up, self.down)
        return norms | {name: shape for p in products for name, shape in p.tensors().items()}


@dataclass(frozen=True)
class Architecture:
    """Dimensions and tensor names; `inverse_frequencies` has head_dim / 2 entries, scaling applied."""

    family: str
    vocab_size: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_epsilon: float
    max_positions: int
    inverse_frequencies: tuple[float, ...]
    tied_head: bool
    embedding: str
    final_norm: str
    head: Projection
    layers: tuple[Layer, ...]

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor the model is made of."""
        shapes: dict[str, tuple[int, ...]] = {
            self.embedding: (self.vocab_size, self.hidden_size),
            self.final_norm: (self.hidden_size,),
            **self.head.tensors(),
        }
        for layer in self.layers:
            shapes |= layer.tensors(self.hidden_size, self.head_dim)
        return shapes


def describe(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; Unsupported names what cannot be built."""
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise Unsupported(f"model family {family!r} is not supported: {', '.join(FAMILIES)} are")
    if config.get("hidden_act", "silu") != "silu":
        raise Unsupported(f"activation {config['hidden_act']!r} is not supported: silu is")
    try:
        return _Reader(family, config).architecture()
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise BadInput(f"config.json: is damaged: {type(error).__name__}: {error}") from error


class _Reader:
    def __init__(self, family: str, config: Mapping[str, Any]) -> None:
        self._family = family
        self._config = config
        self._hidden = self._count("hidden_size")
        self._heads = self._count("num_attention_heads")
        self._kv_heads = self._count("num_key_value_heads", self._heads)
        self._head_dim = self._count("head_dim", self._hidden // self._heads)
        if self._heads % self._kv_heads or self._head_dim % 2:
            raise BadInput(
                f"config.json: {self._heads} heads over {self._kv_heads} kv heads of"
                f" {self._head_dim}: heads must be a multiple and the size even"
            )

    def architecture(self) -> Architecture:
        vocab = self._count("vocab_size")
        tied = bool(self._config.get("tie_word_embeddings", False))
        embedding = "model.embed_tokens.weight"
        head = embedding if tied else "lm_head.weight"
        return Architecture(
            family=self._family,
            vocab_size=vocab,
            hidden_size=self._hidden,
            heads=self._heads,
            kv_heads=self._kv_heads,
            head_dim=self._head_dim,
            norm_epsilon=self._number("rms_norm_eps", 1e-6),
            max_positions=self._count("max_position_embeddings"),
            inverse_frequencies=inverse_frequencies(self._config, self._head_dim),
            tied_head=tied,
            embedding=embedding,
            final_norm="model.norm.weight",
            head=Projection((head,), (vocab,), self._hidden),
            layers=tuple(self._layer(i) for i in range(self._count("num_hidden_layers"))),
        )

    def _layer(self, index: int) -> Layer:
        at = f"model.layers.{index}"
        q_rows, kv_rows = self._heads * self._head_dim, self._kv_heads * self._head_dim
        ffn = self._count("intermediate_size")
        qk_norm = self._family == "qwen3"
        qkv_bias = self._family == "qwen2" or self._flag("attention_bias")
        out_bias = self._family != "qwen2" and self._flag("attention_bias")
        return Layer(
            input_norm=f"{at}.input_layernorm.weight",
            qkv=_projection(
                [f"{at}.self_attn.{p}_proj" for p in "qkv"],
                (q_rows, kv_rows, kv_rows),
                self._hidden,
                qkv_bias,
            ),
            q_norm=f"{at}.self_attn.q_norm.weight" if qk_norm else None,
            k_norm=f"{at}.self_attn.k_norm.weight" if qk_norm else None,
            output=_projection([f"{at}.self_attn.o_proj"], (self._hidden,), q_rows, out_bias),
            post_norm=f"{at}.post_attention_layernorm.weight",
            gate_up=_projection(
                [f"{at}.mlp.{p}_proj" for p in ("gate", "up")],
                (ffn, ffn),
                self._hidden,
                self._flag("mlp_bias"),
            ),
            down=_projection([f"{at}.mlp.down_proj"], (self._hidden,), ffn, self._flag("mlp_bias")),
            window=self._window(index),
        )

    def _window(self, index: int) -> int | None:
        window = self._config.get("sliding_window")
        if window is None or self._family not in ("mistral", "qwen2", "qwen3"):
            return None
        if self._family != "mistral" and not self._flag("use_sliding_window"):
            return None
        types = self._config.get("layer_types")
        if types is None:
            slides = index >= self._config.get("max_window_layers", 0)
        else:
            slides = types[index] == "sliding_attention"
        return self._count("sliding_window") if slides else None

    def _count(self, key: str, default: int | None = None) -> int:
        value = self._config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or value < 1:
            raise BadInput(f"config.json: {key}: {value!r}, must be a positive whole number")
        return value

    def _number(self, key: str, default: float) -> float:
        value = self._config.get(key, default)
        if not isinstance(value, (int, float)) or not value > 0:
            raise BadInput(f"config.json: {key}: {value!r}, must be a positive number")
        return float(value)

    def _flag(self, key: str) -> bool:
        return bool(self._config.get(key, False))


def _projection(stems: list[str], rows: tuple[int, ...], columns: int, biased: bool) -> Projection:
    weights = tuple(f"{stem}.weight" for stem in stems)
    return Projection(weights, rows, columns, tuple(f"{s}.bias" for s in stems) if biased else ())


def inverse_frequencies(config: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """Rotary inverse frequencies; transformers 5 writes `rope_parameters`, before it `rope_scaling`."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise Unsupported("partial rotary embeddings are not supported")
    plain = [theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2)]
    try:
        return tuple(_scaled(kind, rope, plain))
    except KeyError as missing:
        raise BadInput(f"config.json: rope scaling {kind}: {missing} is missing") from missing


def _scaled(kind: str, rope: Mapping[str, Any], plain: list[float]) -> list[float]:
    if kind == "default":
        return plain
    if kind == "linear":
        return [f / float(rope["factor"]) for f in plain]
    if kind == "llama3":
        return [_llama3(f, rope) for f in plain]
    if kind == "factors":  # a GGUF carries the divisors themselves
        return [f / float(by) for f, by in zip(plain, rope["factors"], strict=True)]
    raise Unsupported(f"rope scaling {kind!r} is not supported: default, linear and llama3 are")


def _llama3(frequency: float, rope: Mapping[str, Any]) -> float:
    """Long waves are slowed by `factor`, short ones kept, those between are blended."""
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    return (1 - kept) * frequency / float(rope["factor"]) + kept * frequency
