"""How the hub's checkpoints of a family store what its adapter describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.float32]]
_LINEAR = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")


def stored(settings: Mapping[str, Any], tensors: Tensors) -> Tensors:
    """The tensors a checkpoint's file holds for those of `build.architecture.describe`."""
    if settings["model_type"] == "gpt2":
        return _gpt2(tensors)
    if settings["model_type"] == "gemma3_text":
        return {name: v - np.float32(1) if v.ndim == 1 else v for name, v in tensors.items()}
    return tensors


def _gpt2(tensors: Tensors) -> Tensors:
    """q, k and v are one tensor, and linear layers are [in, out]."""
    joined = dict(tensors)
    for name in tensors:
        if "c_attn_q." in name:
            parts = [joined.pop(name.replace("_q.", f"_{letter}.")) for letter in "qkv"]
            joined[name.replace("_q.", ".")] = np.concatenate(parts)
    turned = {name: values.T if _LINEAR.search(name) else values for name, values in joined.items()}
    return {name: np.ascontiguousarray(values) for name, values in turned.items()}
