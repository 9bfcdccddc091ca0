"""ONNX Runtime GenAI's Generator. A program of the benchmark, in that library's environment.

  python -m loadtest.bench.side_onnxruntime FOLDER THREADS

  {"do": "generate", "prompts": [[ids…]…], "max_tokens": 64}     streams: [time since the command, tokens]…
  {"do": "score", "windows": [[ids…]…]}                          losses of the tokens after the first

Prompts of one length are one batch of one Generator.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import onnxruntime_genai as genai

from loadtest.bench.program import Answer, serve
from loadtest.bench.quality import token_losses


class Side:
    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        decoder = json.loads((folder / "genai_config.json").read_text("utf-8"))["model"]["decoder"]
        self._head_size = int(decoder["head_size"])
        config = genai.Config(str(folder))
        options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = genai.Model(config)

    def answer(self, command: Answer) -> Answer:
        if command["do"] == "score":
            return {"losses": self._score(command["windows"])}
        prompts, tokens = np.array(command["prompts"], np.int32), command["max_tokens"]
        began = time.monotonic()
        generator = self._generator(prompts, prompts.shape[1] + tokens)
        times = []
        while not generator.is_done():
            generator.generate_next_token()
            times.append((time.monotonic() - began, 1))
        assert len(times) == tokens, len(times)
        return {"streams": [times] * len(prompts)}

    def _generator(self, prompts: Any, length: int) -> Any:
        """The shortest length is the longest too: the end-of-sequence token ends nothing."""
        parameters = genai.GeneratorParams(self._model)
        parameters.set_search_options(
            max_length=length, min_length=length, do_sample=False, batch_size=len(prompts)
        )
        generator = genai.Generator(self._model, parameters)
        generator.append_tokens(prompts)
        return generator

    def _score(self, windows: list[list[int]]) -> list[list[float]]:
        """By its graph, which has the logits of every position; the library shows those of the last."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        path = self._folder / "model.onnx"
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return [
            token_losses(session.run(["logits"], _feed(session, self._head_size, ids))[0][0], ids)
            for ids in windows
        ]


def _feed(session: Any, head_size: int, ids: list[int]) -> dict[str, Any]:
    """The ids, all seen, after no past; the graph does not tell the size of a head."""
    feed: dict[str, Any] = {"input_ids": np.array([ids], np.int64)}
    feed["attention_mask"] = np.ones_like(feed["input_ids"])
    for entry in session.get_inputs():
        if entry.name.startswith("past_key_values."):
            feed[entry.name] = np.zeros((1, entry.shape[1], 0, head_size), np.float32)
    return feed


if __name__ == "__main__":
    serve(lambda: partial(Side.answer, Side(Path(sys.argv[1]), int(sys.argv[2]))))
