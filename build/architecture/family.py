"""What an adapter declares of each of its families, beside the code that reads them.

`defaults` say what an absent key of config.json means: the default that transformers 5.23 has in the family's
class. Every key that the adapter reads is listed. Where the default is None, the value follows from other
keys. A null in the file is not an absent key: where transformers derives the value so do we, else it is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from build.errors import Unsupported

ROTARY: Final = {"rope_theta": 10000.0, "rope_scaling": None, "rope_parameters": None}
# The names of llama.cpp's tensors, and ours.
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LLAMA_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class Layout:
    """`interleaved`: rows of q and k stand in neighbouring pairs, not in halves of a head; `norm_shift` was
    added to the weights of all norms; `rope_factors`: a tensor may divide the frequencies; `biased`: parts of
    a layer that may have a bias.
    """

    family: str
    layer: Mapping[str, str] = field(default_factory=lambda: LLAMA_LAYER)
    interleaved: bool = False
    norm_shift: float = 0.0
    rope_factors: bool = False
    biased: tuple[str, ...] = ("attn_q", "attn_k", "attn_v")

    def hub_name(self, name: str) -> str:
        """The name that transformers gives the tensor; Unsupported for one that has no place."""
        *path, leaf = name.split(".")
        if len(path) == 1 and path[0] in _WHOLE and leaf == "weight":
            return f"{_WHOLE[path[0]]}.{leaf}"
        known = len(path) == 3 and path[0] == "blk" and path[2] in self.layer
        if known and (leaf == "weight" or (leaf == "bias" and path[2] in self.biased)):
            return f"model.layers.{path[1]}.{self.layer[path[2]]}.{leaf}"
        raise Unsupported(f"GGUF tensor {name} has no place in a {self.family} model")


@dataclass(frozen=True)
class Family:
    """A `model_type`. `names` are other names of keys, which win over their own; `nullable` are further keys
    that may be null; `tokenizer` is the class where no file names one, or with `always_tokenizer` whatever
    they name; `gguf` is the layout by the name that llama.cpp has for the family.
    """

    defaults: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    nullable: frozenset[str] = frozenset()
    tokenizer: str | None = None
    always_tokenizer: bool = False
    gguf: Mapping[str, Layout] = field(default_factory=dict)

    @property
    def may_be_null(self) -> frozenset[str]:
        """Keys that a config.json may set to null."""
        return self.nullable | {key for key, value in self.defaults.items() if value is None}

    def completed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The config with every key that the adapter reads."""
        own = {key: value for key, value in config.items() if key not in self.names}
        renamed = {self.names[key]: value for key, value in config.items() if key in self.names}
        return {**self.defaults, **own, **renamed}
