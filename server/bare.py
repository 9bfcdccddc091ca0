"""A bare ONNX Runtime loop, driven by JSON like inprocess.py: a lower bound for the time of decoding.

  {"positions": […], "steps": 63, "capacity": 2048}: decodes a row per position for so many steps
    step_s    seconds of each step: run with everything bound, take the argmax, feed it back

It has no scheduler, sampling or streams. The buffers have the shapes of the engine's, filled with random
numbers.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engine.runners.onnx_runner import open_session

Answer = dict[str, Any]


class Batch:
    """Rows of a decode step, bound once."""

    def __init__(
        self, session: ort.InferenceSession, model: Answer, positions: NDArray[np.int32], capacity: int
    ) -> None:
        rows = len(positions)
        self._session = session
        self._binding = session.io_binding()
        self._ids = np.zeros((rows, 1), np.int64)
        self._lengths = positions.copy()
        self._total = np.array(positions.max() + 1, np.int32)
        self._logits = np.zeros((rows, 1, model["vocab_size"]), np.float32)
        self._caches = _noise(model, positions, capacity)
        self._bind_in("input_ids", self._ids)
        self._bind_in("seqlens_k", self._lengths)
        self._bind_in("total_sequence_length", self._total)
        self._bind_out("logits", self._logits)
        for name, cache in self._caches.items():
            self._bind_in(f"past_{name}", cache)
            self._bind_out(f"present_{name}", cache)

    def step(self) -> None:
        self._session.run_with_iobinding(self._binding)
        np.argmax(self._logits[:, 0], axis=1, out=self._ids[:, 0])
        self._lengths += 1
        self._total += 1

    def _bind_in(self, name: str, array: NDArray[Any]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _bind_out(self, name: str, array: NDArray[Any]) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _noise(model: Answer, positions: NDArray[np.int32], capacity: int) -> dict[str, NDArray[np.float32]]:
    """A KV cache of random numbers: pages that were never written would share one page, and be fast to
    read.
    """
    shape = (len(positions), model["kv_heads"], capacity, model["head_dim"])
    filled = int(positions.max()) + 1
    noise = np.random.default_rng(0).standard_normal((*shape[:2], filled, shape[3]), np.float32)
    names = [f"{kind}_{layer}" for layer in range(model["layers"]) for kind in ("key", "value")]
    caches = {name: np.zeros(shape, np.float32) for name in names}
    for cache in caches.values():
        cache[:, :, :filled] = noise
    return caches


def decode(session: ort.InferenceSession, model: Answer, command: Answer) -> Answer:
    batch = Batch(session, model, np.array(command["positions"], np.int32), command["capacity"])
    times = [time.monotonic()]
    for _ in range(command["steps"]):
        batch.step()
        times.append(time.monotonic())
    return {"step_s": np.diff(times).tolist()}


def main(engine: Path, threads: int) -> None:
    model = json.loads((engine / "manifest.json").read_text("utf-8"))["model"]
    session = open_session(engine / "model.onnx", threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(decode(session, model, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
