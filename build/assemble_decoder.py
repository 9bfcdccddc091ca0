"""A decoder's engine for ONNX Runtime: one graph to serve, and for the verification one more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from build import verify
from build.architecture.parts import Architecture
from build.assembly import GRAPH, WEIGHTS, Facts, Progress, onnxruntime_facts
from build.checkpoint import Checkpoint
from build.dialects.contents import store_decoder
from build.dialects.encoding import require_blocks
from build.dialects.onnxruntime.graph import build_graph, require_runnable
from build.dialects.onnxruntime.store import Store
from build.dialects.scored import Scored
from build.dialects.weight_file import WeightFile
from build.passes.smooth import smooth
from build.quantise import Precision
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
        prepared = self._prepared(progress)
        advance = progress.stage("weights", len(self.architecture.layers))
        with WeightFile(folder / WEIGHTS) as file:
            store = Store(prepared, self.precision, file)
            store_decoder(store, self.architecture, advance)
        ir.save(build_graph(self.architecture, store, Scored.LAST), folder / GRAPH)
        ir.save(build_graph(self.architecture, store, Scored.ALL), folder / _ALL_POSITIONS)

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

    def _prepared(self, progress: Progress) -> Checkpoint:
        """What is written: the same model, its ranges made easier where it will be rounded."""
        if self.precision not in (Precision.INT8, Precision.INT4):
            return self.checkpoint
        return smooth(
            self.checkpoint, self.architecture, progress.stage("smooth", len(self.architecture.layers))
        )
