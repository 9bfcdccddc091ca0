"""Reads and checks values of config.json; BadInput names the key of a wrong one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from build.architecture.family import Family
from build.architecture.parts import Activation, Projection
from build.errors import BadInput, Unsupported

FULL, SLIDING = LAYER_TYPES = ("full_attention", "sliding_attention")
_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
}


class ConfigReader:
    """Reads the keys of a config.json, completed with what its family's absent keys mean."""

    def __init__(self, config: Mapping[str, Any], families: Mapping[str, Family]) -> None:
        family = families[str(config.get("model_type"))]
        self.config = family.completed(config)
        self._follows = family.may_be_null

    def count(self, key: str, null: int | None = None) -> int:
        """A positive number; `null` stands for null where transformers derives it from other keys."""
        value = self.config[key]
        value = null if value is None and key in self._follows else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInput(f"config.json: {key}: {value!r}, must be a positive whole number")
        return value

    def index(self, key: str) -> int:
        value = self.config[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BadInput(f"config.json: {key}: {value!r}, must be a whole number of at least 0")
        return value

    def number(self, key: str) -> float:
        value = self.config[key]
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise BadInput(f"config.json: {key}: {value!r}, must be a positive number")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false; null counts as false."""
        value = self.config[key]
        if not isinstance(value, bool) and value is not None:
            raise BadInput(f"config.json: {key}: {value!r}, must be true or false")
        return bool(value)

    def heads(self) -> tuple[int, int, int]:
        """The heads, the kv heads that they share, and the size of one, which the rotation halves."""
        heads = self.count("num_attention_heads")
        kv_heads = self.count("num_key_value_heads", null=heads)
        size = self.count("head_dim", null=self.count("hidden_size") // heads)
        if heads % kv_heads or size % 2:
            raise BadInput(
                f"config.json: {heads} heads over {kv_heads} kv heads of {size}: heads must be a multiple and"
                " the size even"
            )
        return heads, kv_heads, size

    def kinds(self, layers: int) -> list[str] | None:
        """`layer_types` of so many layers, or None where it is null."""
        kinds = self.config["layer_types"]
        if kinds is None:
            return None
        if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= set(LAYER_TYPES):
            problem = f"must be a list of {layers}, each {' or '.join(LAYER_TYPES)}"
            raise BadInput(f"config.json: layer_types: {kinds!r}, {problem}")
        return kinds

    def activation(self, key: str) -> Activation:
        return activation(key, self.config[key])


def activation(key: str, name: object) -> Activation:
    """The activation of that name, which stands under `key`."""
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise Unsupported(f"config.json: {key}: activation {name!r} is not supported: {known} are")
    return _ACTIVATIONS[name]


def projection(stems: list[str], rows: tuple[int, ...], columns: int, biased: bool) -> Projection:
    """The linear layers `STEM.weight`, `STEM.bias` as one stacked product."""
    weights = tuple(f"{stem}.weight" for stem in stems)
    return Projection(weights, rows, columns, tuple(f"{s}.bias" for s in stems) if biased else ())
