"""Graphs of the `tensorrt` dialect in a folder, without the ceremony of a build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from build.architecture.parts import Architecture, Projection
from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint, Weight
from build.dialects.contents import Scored, store_decoder, store_encoder_decoder
from build.dialects.encoding import Role, stacked
from build.dialects.tensorrt.cross_decoder import build_cross_decoder
from build.dialects.tensorrt.decoder import build_decoder
from build.dialects.tensorrt.encoder import build_encoder
from build.dialects.tensorrt.executor_cpu import CpuExecutor
from build.dialects.tensorrt.precision import BLOCK_SIZES
from build.dialects.tensorrt.session import Session
from build.dialects.tensorrt.store import Store
from build.dialects.weight_file import WeightFile
from build.quantise import Floats, Precision

CAPACITY = 64


@dataclass(frozen=True)
class Graphs:
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "last.onnx"

    def session(self, scored: Scored = Scored.LAST, rows: int = 1) -> Session:
        return Session(CpuExecutor(self.folder / f"{scored.value}.onnx", rows), rows)


def write_graphs(
    folder: Path,
    checkpoint: Checkpoint,
    architecture: Architecture,
    precision: Precision,
    capacity: int = CAPACITY,
    block_size: int = BLOCK_SIZES[0],
) -> Graphs:
    folder.mkdir()
    with _store(folder / "weights", checkpoint, precision, block_size) as store:
        store_decoder(store, architecture, lambda: None)
        for scored in Scored:
            ir.save(build_decoder(architecture, store, capacity, scored), folder / f"{scored.value}.onnx")
    return Graphs(folder)


@dataclass(frozen=True)
class Pair:
    """The graphs of an encoder-decoder."""

    folder: Path

    def session(self, scored: Scored = Scored.LAST, rows: int = 1) -> Session:
        decoder, encoder = self.folder / f"{scored.value}.onnx", self.folder / "encoder.onnx"
        return Session(CpuExecutor(decoder, rows, encoder), rows)


def write_pair(
    folder: Path,
    checkpoint: Checkpoint,
    model: EncoderDecoder,
    precision: Precision,
    capacity: int = CAPACITY,
) -> Pair:
    folder.mkdir()
    with _store(folder / "weights", checkpoint, precision) as store:
        store_encoder_decoder(store, model, lambda: None)
        ir.save(build_encoder(model, store), folder / "encoder.onnx")
        for scored in Scored:
            decoder = build_cross_decoder(model, store, capacity, capacity + 8, scored)
            ir.save(decoder, folder / f"{scored.value}.onnx")
    return Pair(folder)


@contextmanager
def _store(
    path: Path, checkpoint: Checkpoint, precision: Precision, block_size: int = BLOCK_SIZES[0]
) -> Iterator[Store]:
    with WeightFile(path) as file:
        yield Store(checkpoint, precision, file, block_size)


def as_rounded(
    path: Path, checkpoint: Checkpoint, model: Architecture | EncoderDecoder, precision: Precision
) -> tuple[Checkpoint, Floats]:
    """The checkpoint and the head [vocab, hidden] with the values that the graphs restore.

    The head is apart: where it is tied to the embedding, only the head is rounded.
    """
    with WeightFile(path) as file:
        restored = _Restored(checkpoint, precision, file)
        if isinstance(model, Architecture):
            store_decoder(restored, model, lambda: None)
        else:
            store_encoder_decoder(restored, model, lambda: None)
    (head,) = model.head.parts
    values = restored.weights[head].read()
    if head in restored.tensors:
        del restored.weights[head]
    return replace(checkpoint, weights={**checkpoint.weights, **restored.weights}), values


@dataclass(frozen=True)
class _Restored(Store):
    """A store that remembers what its products become."""

    weights: dict[str, Weight] = field(default_factory=dict, init=False)

    def add_projection(self, _name: str, projection: Projection, role: Role) -> None:
        rounded = self.rounded(projection, role)
        values = stacked(self.checkpoint, projection) if rounded is None else rounded.restored()
        parts = np.split(values, np.cumsum(projection.rows)[:-1])
        for name, part in zip(projection.parts, parts, strict=True):
            self.weights[name] = Weight(part.shape, partial(_identity, part))


def _identity(values: Floats) -> Floats:
    return values
