"""A decoder's engine for ONNX Runtime: one graph to serve, and for the verification one more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from build import verify
from build.architecture.parts import Architecture
from build.assembly import GRAPH, KERNELS, WEIGHTS, Facts, Progress, onnxruntime_facts
from build.checkpoint import Checkpoint
from build.dialects.contents import Scored, store_decoder
from build.dialects.encoding import require_blocks
from build.dialects.onnxruntime.decoder import build_decoder, require_runnable
from build.dialects.onnxruntime.kernels import encode_index, runs_on_kernels
from build.dialects.onnxruntime.store import Rounding, Store
from build.dialects.weight_file import WeightFile
from build.passes.compensate import compensated
from build.passes.rotate import rotatable, rotate, spread
from build.passes.smooth import smooth
from build.quantise import Precision, Rows
from build.verify import Quality

_ALL_POSITIONS = "all_positions.onnx"


@dataclass(frozen=True)
class DecoderAssembly:
    checkpoint: Checkpoint
    architecture: Architecture
    precision: Precision

    def require_buildable(self) -> None:
        require_runnable(self.architecture, self.precision)
        require_blocks(self.checkpoint, self.precision)

    def write(self, folder: Path, progress: Progress) -> None:
        checkpoint, architecture, rounding = self._prepared(progress)
        advance = progress.stage("weights", len(architecture.layers))
        with WeightFile(folder / WEIGHTS) as file:
            store = Store(checkpoint, self.precision, file, rounding)
            store_decoder(store, architecture, advance)
        ir.save(build_decoder(architecture, store, Scored.LAST), folder / GRAPH)
        ir.save(build_decoder(architecture, store, Scored.ALL), folder / _ALL_POSITIONS)
        if rounding and runs_on_kernels(architecture):
            (folder / KERNELS).write_bytes(encode_index(architecture, store))

    def verify(self, folder: Path, progress: Progress, tokens: int) -> Quality:
        tokenizer = self.checkpoint.tokenizer.json
        ids = verify.windows(tokenizer, self.architecture.max_positions, tokens)
        advance = progress.stage("verify", len(self.architecture.layers) + len(ids))
        every = folder / _ALL_POSITIONS
        quality = verify.measure(self.checkpoint, self.architecture, every, ids, advance)
        verify.require_same_graph(every, folder / GRAPH, self.architecture, ids[0])
        every.unlink()
        return quality

    def facts(self) -> Facts:
        return onnxruntime_facts(self.precision)

    @property
    def _rotates(self) -> bool:
        return self.precision is Precision.INT8 and rotatable(self.architecture)

    def _prepared(self, progress: Progress) -> tuple[Checkpoint, Architecture, Rounding | None]:
        """What is written: the same model, its ranges made easier where it will be rounded."""
        if self.precision not in (Precision.INT8, Precision.INT4):
            return self.checkpoint, self.architecture, None
        advance = progress.stage("calibrate", len(self.architecture.layers))
        if not self._rotates:
            return smooth(self.checkpoint, self.architecture, advance), self.architecture, None
        checkpoint, architecture = rotate(self.checkpoint, self.architecture)
        rows = compensated(checkpoint, architecture, advance)
        return checkpoint, architecture, _rounding(architecture, rows)


def _rounding(architecture: Architecture, rows: Mapping[str, Rows]) -> Rounding:
    attentions = [layer.attention for layer in architecture.layers]
    apart = [attention.qkv for attention in attentions if attention.q_norm]
    apart += [layer.ffn.inner for layer in architecture.layers if layer.ffn.gated]
    return Rounding(rows, frozenset(spread(architecture)), frozenset(apart))
