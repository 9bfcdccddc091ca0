"""Engines in a folder without the ceremony of a build: graphs of both kinds over one weight file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.dialects.contents import Scored, store_decoder
from build.dialects.onnxruntime.decoder import build_decoder
from build.dialects.onnxruntime.session import Session
from build.dialects.onnxruntime.store import Store
from build.dialects.weight_file import WeightFile
from build.quantise import Floats, Ids, Precision


@dataclass(frozen=True)
class Engine:
    folder: Path
    architecture: Architecture
    capacity: int

    def session(self, scored: Scored = Scored.LAST, rows: int = 1) -> Session:
        graph = self.folder / f"{scored.value}.onnx"
        return Session(graph, self.capacity, rows)

    def all_logits(self, ids: Ids) -> Floats:
        """[positions, vocab] of one prefill."""
        return self.session(Scored.ALL).prefill(0, ids)

    def greedy(self, ids: Ids, count: int) -> list[int]:
        """A prefill, then decode steps."""
        session = self.session()
        chosen = [int(session.prefill(0, ids)[-1].argmax())]
        while len(chosen) < count:
            chosen.append(int(session.decode(np.array(chosen[-1:]))[0].argmax()))
        return chosen


def write_engine(
    folder: Path,
    checkpoint: Checkpoint,
    architecture: Architecture,
    precision: Precision,
    capacity: int = 128,
) -> Engine:
    folder.mkdir()
    with WeightFile(folder / "weights") as file:
        store = Store(checkpoint, precision, file)
        store_decoder(store, architecture, lambda: None)
    for scored in Scored:
        ir.save(build_decoder(architecture, store, scored), folder / f"{scored.value}.onnx")
    return Engine(folder, architecture, capacity)
