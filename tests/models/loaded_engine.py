"""A process that holds an engine as the server's does, every slot full. Prints its memory in bytes.

  python -m tests.models.loaded_engine FOLDER '{"slots": 8, "context": 256, "source": 0, "model": {…}}'

`model` is the manifest's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engine.edge.artifact import Architecture, ModelShape
from engine.runners.onnx_runner import OnnxRunner, open_session
from loadtest.memory import memory_of_tree

CHUNK = 128
# Enough that every page of the embedding has been read.
_SPREAD = 32 * CHUNK


def main(folder: Path, plan: dict[str, Any]) -> None:
    model = plan["model"]
    shape = ModelShape(**(model | {"architecture": Architecture(model["architecture"])}))
    encoder = open_session(folder / "encoder.onnx", 2) if shape.has_encoder else None
    session = open_session(folder / "model.onnx", 2)
    slots, context, source = plan["slots"], plan["context"], plan["source"]
    runner = OnnxRunner(session, shape, slots, context, CHUNK, encoder, source)
    _fill(runner, shape, slots, context, source)
    print(memory_of_tree(os.getpid()).pss)


def _fill(runner: OnnxRunner, shape: ModelShape, slots: int, context: int, source: int) -> None:
    """Every position once, every number of rows once, and many different tokens."""
    tokens = np.random.default_rng(0).integers(0, shape.vocab_size, (_SPREAD // CHUNK, CHUNK)).tolist()
    for cache in (*runner._caches.values(), *runner._cross.values()):
        cache.fill(0.01)
    for slot in range(slots):
        if shape.has_encoder:
            runner.encode(slot, [token for row in tokens for token in row][:source])
        else:
            runner.prefill(slot, context - CHUNK, tokens[slot % len(tokens)])
    for row in [] if shape.has_encoder else tokens:
        runner.prefill(0, 0, row)
    for rows in range(1, slots + 1):
        runner.decode(tokens[0][:rows], [context - 1] * rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
