"""OpenVINO GenAI's ContinuousBatchingPipeline. A program of the benchmark, in OpenVINO's environment.

  python -m loadtest.bench.side_openvino FOLDER THREADS SEQUENCES PROPERTIES     PROPERTIES: a JSON object

  {"do": "generate", "prompts": [[ids…]…], "max_tokens": 64}     streams: [time since the command, tokens]…
  {"do": "score", "windows": [[ids…]…]}                          losses of the tokens after the first

All prompts of 32 sequences fit in one step, and no KV is kept for later prompts.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from loadtest.bench.program import Answer, serve

_BATCHED_TOKENS = 4096
_CACHE_GB = 2


def open_pipeline(folder: str, threads: int, sequences: int, properties: dict[str, str]) -> Any:
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = _BATCHED_TOKENS
    scheduler.max_num_seqs = sequences
    scheduler.cache_size = _CACHE_GB
    scheduler.enable_prefix_caching = False
    own = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    return genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", own | properties)


def answer(pipeline: Any, command: Answer) -> Answer:
    if command["do"] == "score":
        return {"losses": [_losses(pipeline, window) for window in command["windows"]]}
    began = time.monotonic()
    config = _greedy(command["max_tokens"])
    handles = [pipeline.add_request(index, _ids(ids), config) for index, ids in enumerate(command["prompts"])]
    streams: list[list[tuple[float, int]]] = [[] for _ in handles]
    while pipeline.has_non_finished_requests():
        pipeline.step()
        now = time.monotonic() - began
        for handle, stream in zip(handles, streams, strict=True):
            if handle.can_read():
                stream.append((now, sum(len(found.generated_ids) for found in handle.read().values())))
    return {"streams": streams}


def _losses(pipeline: Any, window: list[int]) -> list[float]:
    """The prompt echoed with its log-probabilities; that of the first token means nothing."""
    config = _greedy(1)
    config.logprobs, config.echo = 1, True
    handle = pipeline.add_request(0, _ids(window), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return [-value for value in handle.read_all()[0].generated_log_probs[1 : len(window)]]


def _greedy(tokens: int) -> Any:
    config = genai.GenerationConfig()
    config.max_new_tokens = tokens
    config.do_sample = False
    config.ignore_eos = True
    config.apply_chat_template = False
    return config


def _ids(ids: list[int]) -> Any:
    return ov.Tensor(np.array([ids], np.int64))


if __name__ == "__main__":
    _folder, _threads, _sequences, _properties = sys.argv[1:]
    _opened = partial(open_pipeline, _folder, int(_threads), int(_sequences), json.loads(_properties))
    serve(lambda: partial(answer, _opened()))
