"""Engines of encoder-decoders in a folder without the ceremony of a build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from build.architecture import describe_model, view
from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint
from build.dialects.contents import store_encoder_decoder
from build.dialects.onnxruntime.cross_decoder import build_cross_decoder
from build.dialects.onnxruntime.encoder import build_encoder
from build.dialects.onnxruntime.session import Session
from build.dialects.onnxruntime.store import Store
from build.dialects.weight_file import WeightFile
from build.quantise import Floats, Ids, Precision
from build.sources.folder import open_folder


@dataclass(frozen=True)
class Engine:
    folder: Path
    model: EncoderDecoder
    capacity: int = 96

    def session(self, rows: int = 1) -> Session:
        graph, encoder = self.folder / "model.onnx", self.folder / "encoder.onnx"
        return Session(graph, self.capacity, rows, encoder, self.capacity)

    def logits(self, sources: list[Ids], targets: Ids) -> Floats:
        """[rows, positions, vocab] of targets [rows, positions], stepped together."""
        session = self.session(len(sources))
        for row, source in enumerate(sources):
            session.encode(row, source)
        return np.stack([session.decode(column) for column in targets.T], axis=1)

    def greedy(self, source: Ids, start: int, count: int) -> list[int]:
        """Ids after `start`, whatever ends a sequence."""
        session = self.session()
        session.encode(0, source)
        chosen = [start]
        while len(chosen) <= count:
            chosen.append(int(session.decode(np.array(chosen[-1:]))[0].argmax()))
        return chosen[1:]


def open_model(folder: Path) -> tuple[Checkpoint, EncoderDecoder]:
    """The checkpoint as its model names it."""
    checkpoint = view(open_folder(folder))
    model = describe_model(checkpoint.config)
    assert isinstance(model, EncoderDecoder)
    return checkpoint, model


def write_engine(folder: Path, checkpoint: Checkpoint, model: EncoderDecoder, precision: Precision) -> Engine:
    folder.mkdir(parents=True)
    with WeightFile(folder / "model.onnx.data") as file:
        store = Store(checkpoint, precision, file)
        store_encoder_decoder(store, model, lambda: None)
    ir.save(build_encoder(model, store), folder / "encoder.onnx")
    ir.save(build_cross_decoder(model, store), folder / "model.onnx")
    return Engine(folder, model)
