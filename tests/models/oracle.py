"""transformers' own model with the tensors of a checkpoint, under the names we gave them."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from build.checkpoint import Checkpoint


def llama_oracle(checkpoint: Checkpoint) -> Any:
    settings = {key: value for key, value in checkpoint.config.items() if value is not None}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    state = {name: torch.tensor(weight.read()) for name, weight in checkpoint.weights.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    model.tie_weights()
    return model.eval()
