"""Graphs of the `tensorrt` dialect in a folder, without the ceremony of a build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from build.architecture.parts import Architecture, Projection
from build.checkpoint import Checkpoint, Weight
from build.dialects.contents import store_decoder
from build.dialects.encoding import Role, stacked
from build.dialects.scored import Scored
from build.dialects.tensorrt.decoder import build_decoder
from build.dialects.tensorrt.executor_cpu import CpuExecutor
from build.dialects.tensorrt.session import Session
from build.dialects.tensorrt.store import Store, open_store
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
) -> Graphs:
    folder.mkdir()
    with _store(folder / "weights", checkpoint, precision) as store:
        store_decoder(store, architecture, lambda: None)
        for scored in Scored:
            ir.save(build_decoder(architecture, store, capacity, scored), folder / f"{scored.value}.onnx")
    return Graphs(folder)


@contextmanager
def _store(path: Path, checkpoint: Checkpoint, precision: Precision) -> Iterator[Store]:
    with WeightFile(path) as file:
        yield open_store(checkpoint, precision, file)


def as_rounded(
    path: Path, checkpoint: Checkpoint, architecture: Architecture, precision: Precision
) -> tuple[Checkpoint, Floats]:
    """The checkpoint and the head [vocab, hidden] with the values that the graphs restore.

    The head is apart: where it is tied to the embedding, only the head is rounded.
    """
    weights = dict(checkpoint.weights)
    with _store(path, checkpoint, precision) as store:
        for projection, role in _products(architecture):
            weights |= _restored(store, projection, role)
        (head,) = _restored(store, architecture.head, Role.SENSITIVE).values()
    return replace(checkpoint, weights=weights), head.read()


def _products(architecture: Architecture) -> Iterator[tuple[Projection, Role]]:
    for layer in architecture.layers:
        yield layer.attention.qkv, Role.SENSITIVE
        yield layer.attention.output, Role.ROBUST
        yield layer.ffn.inner, Role.ROBUST
        yield layer.ffn.outer, Role.SENSITIVE


def _restored(store: Store, projection: Projection, role: Role) -> dict[str, Weight]:
    matrix = stacked(store.checkpoint, projection)
    rounded = store.rounded(projection, role)
    values = matrix if rounded is None else rounded.restored()
    parts = np.split(values, np.cumsum(projection.rows)[:-1])
    return {
        name: Weight(part.shape, partial(_identity, part))
        for name, part in zip(projection.parts, parts, strict=True)
    }


def _identity(values: Floats) -> Floats:
    return values
