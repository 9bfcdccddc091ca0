"""transformers in fp32 on the CPU: the reference of speed and of quality. A program of the benchmark.

python -m loadtest.bench.side_transformers FOLDER THREADS        FOLDER: as `save_pretrained` writes it

{"do": "generate", "prompts": [[ids…]…], "max_tokens": 64, "num_beams": 4}
  streams   of prompts of one length, as one batch: a list for each of [time since the command, tokens]. All
            rows get a token at once; with more than one beam all tokens come at the end
  ids       the answers
{"do": "score", "windows": [[ids…]…]}
  losses    of each window's tokens after the first
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from loadtest.bench.program import Answer, serve
from loadtest.bench.quality import token_losses


class Arrivals(BaseStreamer):  # type: ignore[misc]  # transformers carries no types
    """The time of each call: first the prompt, then each step's tokens."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _value: Any) -> None:
        self.times.append(time.monotonic())

    def end(self) -> None:
        pass


def load(folder: Path) -> Any:
    seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
    family = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    return family.from_pretrained(folder, dtype=torch.float32).eval()


def answer(model: Any, command: Answer) -> Answer:
    with torch.inference_mode():
        if command["do"] == "score":
            logits = (model(torch.tensor([ids])).logits[0].numpy() for ids in command["windows"])
            return {"losses": list(map(token_losses, logits, command["windows"]))}
        return generate(model, torch.tensor(command["prompts"]), command["max_tokens"], command["num_beams"])


def generate(model: Any, ids: torch.Tensor, tokens: int, beams: int) -> Answer:
    # Without an end-of-sequence id every answer has that many tokens.
    model.generation_config = GenerationConfig(
        max_new_tokens=tokens,
        num_beams=beams,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        decoder_start_token_id=model.generation_config.decoder_start_token_id,
    )
    arrivals = Arrivals()
    began = time.monotonic()
    streamer = None if beams > 1 else arrivals
    output = model.generate(ids, attention_mask=torch.ones_like(ids), streamer=streamer)
    took = time.monotonic() - began
    answers = output[:, 1 if model.config.is_encoder_decoder else ids.shape[1] :]
    assert answers.shape == (len(ids), tokens), output.shape
    stream = [(at - began, 1) for at in arrivals.times[1:]] or [(took, tokens)]
    return {"streams": [stream] * len(ids), "ids": answers.tolist()}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    serve(lambda: partial(answer, load(Path(sys.argv[1]))))
