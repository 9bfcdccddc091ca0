"""Values of a config.json, checked: a wrong one is BadInput that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from build.architecture.parts import Activation, Projection
from build.errors import BadInput, Unsupported

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
    """An absent value and a null are the same: the default, or BadInput where there is none."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def count(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or value < 1:
            raise BadInput(f"config.json: {key}: {value!r}, must be a positive whole number")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.config.get(key)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or not value > 0:
            raise BadInput(f"config.json: {key}: {value!r}, must be a positive number")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.config.get(key)
        return default if value is None else bool(value)

    def activation(self, key: str, default: str) -> Activation:
        return activation(self.config.get(key) or default)


def activation(name: str) -> Activation:
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise Unsupported(f"activation {name!r} is not supported: {known} are")
    return _ACTIVATIONS[name]


def projection(stems: list[str], rows: tuple[int, ...], columns: int, biased: bool) -> Projection:
    """Linear layers `STEM.weight`, `STEM.bias`, stacked."""
    weights = tuple(f"{stem}.weight" for stem in stems)
    return Projection(weights, rows, columns, tuple(f"{s}.bias" for s in stems) if biased else ())
