"""config.json from the metadata of a GGUF file: what llama.cpp reads of it, with llama.cpp's defaults.

A key that changes the result is honoured or refused by its name; docs/build.md lists both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from build.architecture.family import Layout
from build.errors import BadInput, Unsupported

Metadata = Mapping[str, Any]

# Keys of an arithmetic that the graphs do not have, and the values that leave the result unchanged.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.scale": (0,),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "residual_scale": (0, 1),
    "rope.scaling.alpha": (0, 1),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (0,),
}
_UNSCALED, _LINEAR = "none", "linear"
_FREQUENCY_BASE = 10000.0
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_GEMMA3_PATTERN = 6
_GEMMA3_27B_LAYERS = 62


def config_of(
    metadata: Metadata, tensors: Collection[str], rope_factors: Sequence[float] | None, layout: Layout
) -> dict[str, Any]:
    """The configuration of a model with tensors of these names, and these divisors of its frequencies."""
    keys = _Keys(metadata)
    _refuse(keys)
    layers, hidden = keys.count("block_count"), keys.count("embedding_length")
    if layers > len(tensors):
        raise BadInput(f"{keys.shown('block_count', layers)}, but the file has {len(tensors)} tensors")
    heads = keys.of_all_layers("attention.head_count", layers)
    head_dim = _head_dim(keys, hidden // heads)
    config = {
        "model_type": layout.family,
        "vocab_size": len(required(metadata, "tokenizer.ggml.tokens")),
        "hidden_size": hidden,
        "intermediate_size": keys.of_all_layers("feed_forward_length", layers),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys.of_all_layers("attention.head_count_kv", layers, heads),
        "head_dim": head_dim,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": keys.count("context_length"),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": _biased(tensors, ("attn_q", "attn_k", "attn_v", "attn_output")),
        "mlp_bias": _biased(tensors, ("ffn_gate", "ffn_up", "ffn_down")),
        "rope_theta": keys.number("rope.freq_base", _FREQUENCY_BASE),
        "rope_scaling": _rope_scaling(keys, rope_factors, head_dim),
    }
    return config | _gemma3(keys, config) if layout.family == "gemma3_text" else config


def required(metadata: Metadata, key: str) -> Any:
    if key not in metadata:
        raise BadInput(f"GGUF metadata: {key} is missing")
    return metadata[key]


class _Keys:
    """Reads the keys of an architecture; an absent key has its default, or is BadInput without one."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._prefix = f"{metadata['general.architecture']}."

    def value(self, key: str, default: Any) -> Any:
        return self._metadata.get(self._prefix + key, default)

    def shown(self, key: str, value: Any) -> str:
        by_default = "" if self._prefix + key in self._metadata else " by default"
        return f"GGUF metadata: {self._prefix}{key}: {value!r}{by_default}"

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        return self._whole(key, self._value(key, default), least)

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise BadInput(f"{self.shown(key, value)}, must be a positive number")
        return float(value)

    def of_all_layers(self, key: str, layers: int, default: int | None = None) -> int:
        """A count, or an array that has the same one for each layer."""
        value = self._value(key, default)
        if not isinstance(value, list):
            return self._whole(key, value, 1)
        if len(value) != layers:
            raise BadInput(f"{self.shown(key, value)}, must be of {layers} layers, which block_count says")
        if len(set(value)) > 1:
            raise Unsupported(f"{self.shown(key, value)}: layers of different sizes are not supported")
        return self._whole(key, value[0], 1)

    def _value(self, key: str, default: Any) -> Any:
        return required(self._metadata, self._prefix + key) if default is None else self.value(key, default)

    def _whole(self, key: str, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(f"{self.shown(key, value)}, must be a whole number, {least} or more")
        return value


def _refuse(keys: _Keys) -> None:
    for key, neutral in _NEUTRAL.items():
        value = keys.value(key, neutral[0])
        if value not in neutral:
            only = " and ".join(repr(one) for one in neutral)
            raise Unsupported(
                f"{keys.shown(key, value)} is not supported: {only} {'are' if ' ' in only else 'is'}"
            )


def _head_dim(keys: _Keys, share: int) -> int:
    """The size of a head; Unsupported unless queries, keys, values and rotation share one in all layers."""
    size = keys.count("attention.key_length", share)
    alike = {
        "attention.value_length": share,
        "attention.key_length_swa": size,
        "attention.value_length_swa": size,
        "rope.dimension_count": size,
        "rope.dimension_count_swa": size,
    }
    for key, default in alike.items():
        found = keys.count(key, default)
        if found != size:
            raise Unsupported(
                f"{keys.shown(key, found)} is not supported: {size} is, as attention.key_length"
            )
    return size


def _biased(tensors: Collection[str], parts: tuple[str, ...]) -> bool:
    return any(name.endswith(tuple(f".{part}.bias" for part in parts)) for name in tensors)


def _rope_scaling(keys: _Keys, factors: Sequence[float] | None, head_dim: int) -> dict[str, Any] | None:
    """The scaling of the rotation: a divisor for all frequencies, and factors for each."""
    kind = keys.value("rope.scaling.type", _LINEAR)
    if kind not in (_UNSCALED, _LINEAR):
        shown = keys.shown("rope.scaling.type", kind)
        raise Unsupported(f"{shown} is not supported: {_UNSCALED!r} and {_LINEAR!r} are")
    present = [
        key for key in ("rope.scaling.factor", "rope.scale_linear") if keys.value(key, None) is not None
    ]
    unscaled = kind == _UNSCALED or not present or keys.value(present[0], 0) == 0
    factor = 1.0 if unscaled else keys.number(present[0])
    if factors is None:
        return None if factor == 1.0 else {"rope_type": "linear", "factor": factor}
    if len(factors) != head_dim // 2:
        raise BadInput(f"GGUF tensor rope_freqs.weight has {len(factors)} values, must have {head_dim // 2}")
    return {"rope_type": "factors", "factors": [factor * by for by in factors]}


def _gemma3(keys: _Keys, config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of Gemma 3 that llama.cpp has built in; without a window no layer slides."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    window = keys.count("attention.sliding_window", 0, least=0)
    share = config["hidden_size"] // heads
    return {
        "sliding_window": window or None,
        "layer_types": [_LOCAL if window and slides else _GLOBAL for slides in _sliding(keys, layers)],
        "rope_local_base_freq": keys.number("rope.freq_base_swa", _FREQUENCY_BASE),
        "query_pre_attn_scalar": share if layers == _GEMMA3_27B_LAYERS else config["head_dim"],
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _sliding(keys: _Keys, layers: int) -> list[bool]:
    """Whether each layer slides: by a list, or a period whose last layer does not (0: all slide)."""
    key = "attention.sliding_window_pattern"
    pattern = keys.value(key, _GEMMA3_PATTERN)
    if not isinstance(pattern, list):
        period = keys.count(key, _GEMMA3_PATTERN, least=0)
        return [not period or index % period < period - 1 for index in range(layers)]
    if len(pattern) != layers:
        raise BadInput(f"{keys.shown(key, pattern)}, must be of {layers} layers, which block_count says")
    return [bool(slides) for slides in pattern]
