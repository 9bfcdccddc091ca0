"""How llama.cpp's converter stores a family: the names of its tensors, and what it changed in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from build.errors import Unsupported

_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
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
_LLAMA_BIASED = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_GEMMA3_LAYER = _LAYER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


@dataclass(frozen=True)
class Layout:
    """`interleaved`: rows of q and k stand in neighbouring pairs, not in halves of a head; `norm_shift` was
    added to the weights of all norms; `rope_factors`: a tensor may divide the frequencies; `biased`: parts of
    a layer that may have a bias.
    """

    family: str
    layer: Mapping[str, str] = field(default_factory=lambda: _LAYER)
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


_LAYOUTS = {
    "llama": Layout("llama", interleaved=True, rope_factors=True, biased=_LLAMA_BIASED),
    "qwen2": Layout("qwen2"),
    "qwen3": Layout("qwen3"),
    "gemma3": Layout("gemma3_text", _GEMMA3_LAYER, norm_shift=1.0),
}


def layout_of(architecture: str) -> Layout:
    """The layout of an architecture; Unsupported for one that is not described here."""
    if architecture not in _LAYOUTS:
        supported = ", ".join(_LAYOUTS)
        raise Unsupported(f"GGUF architecture {architecture!r} is not supported: {supported} are")
    return _LAYOUTS[architecture]
