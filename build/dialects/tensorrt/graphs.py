"""The files of a model in this dialect: the graphs that are served, and one that scores every position."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from build.architecture import Model
from build.architecture.parts import Architecture
from build.assembly import ENCODER, GRAPH, WEIGHTS, Progress
from build.checkpoint import Checkpoint
from build.dialects.contents import Scored, store_decoder, store_encoder_decoder
from build.dialects.tensorrt.check import require_sound
from build.dialects.tensorrt.cross_decoder import build_cross_decoder
from build.dialects.tensorrt.decoder import build_decoder
from build.dialects.tensorrt.encoder import build_encoder
from build.dialects.tensorrt.sizes import Sizes
from build.dialects.tensorrt.store import Store, open_store
from build.dialects.weight_file import WeightFile
from build.quantise import Precision

ALL_POSITIONS = "all_positions.onnx"


def write_graphs(
    folder: Path,
    checkpoint: Checkpoint,
    model: Model,
    precision: Precision,
    block_size: int,
    sizes: Sizes,
    progress: Progress,
) -> None:
    """BuildError where a graph breaks a rule of the dialect."""
    with WeightFile(folder / WEIGHTS) as file:
        store = open_store(checkpoint, precision, file, block_size)
        _store(store, model, progress)
    for scored, name in ((Scored.LAST, GRAPH), (Scored.ALL, ALL_POSITIONS)):
        _save(_decoder(model, store, sizes, scored), folder / name)
    if not isinstance(model, Architecture):
        _save(build_encoder(model, store), folder / ENCODER)


def layers(model: Model) -> int:
    """Of all stacks."""
    if isinstance(model, Architecture):
        return len(model.layers)
    return len(model.encoder.layers) + len(model.decoder.layers)


def _store(store: Store, model: Model, progress: Progress) -> None:
    advance = progress.stage("weights", layers(model))
    if isinstance(model, Architecture):
        store_decoder(store, model, advance)
    else:
        store_encoder_decoder(store, model, advance)


def _decoder(model: Model, store: Store, sizes: Sizes, scored: Scored) -> ir.Model:
    if isinstance(model, Architecture):
        return build_decoder(model, store, sizes.capacity, scored)
    return build_cross_decoder(model, store, sizes.capacity, sizes.source_capacity, scored)


def _save(graph: ir.Model, path: Path) -> None:
    require_sound(graph, path.name)
    ir.save(graph, path)
