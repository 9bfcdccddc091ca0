"""An encoder-decoder's engine for ONNX Runtime: the encoder and a decoder step, over one weight file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from build import verify_seq2seq
from build.architecture.seq2seq import EncoderDecoder
from build.assembly import ENCODER, GRAPH, WEIGHTS, Facts, Progress, onnxruntime_facts
from build.checkpoint import Checkpoint
from build.dialects.contents import store_encoder_decoder
from build.dialects.encoding import require_blocks
from build.dialects.onnxruntime.cross_decoder import build_cross_decoder
from build.dialects.onnxruntime.encoder import build_encoder
from build.dialects.onnxruntime.store import Store
from build.dialects.weight_file import WeightFile
from build.errors import Unsupported
from build.generation import decoder_start
from build.passes.smooth_seq2seq import smooth_seq2seq
from build.quantise import Precision
from build.verify import Quality


@dataclass(frozen=True)
class EncoderDecoderAssembly:
    checkpoint: Checkpoint
    model: EncoderDecoder
    precision: Precision

    def require_buildable(self) -> None:
        """Halves are for CUDA, where the operator appends a key even if given none, and takes no bias."""
        if self.precision is Precision.FP16:
            raise Unsupported(
                "precision fp16: ONNX Runtime has no attention on CUDA that could read an encoder-decoder's"
                " caches: build it with --engine tensorrt for a GPU, or as int8 for a CPU"
            )
        decoder_start(self.checkpoint)
        require_blocks(self.checkpoint, self.precision)

    def write(self, folder: Path, progress: Progress) -> None:
        prepared = self._prepared(progress)
        advance = progress.stage("weights", self._layers())
        with WeightFile(folder / WEIGHTS) as file:
            store = Store(prepared, self.precision, file)
            store_encoder_decoder(store, self.model, advance)
        ir.save(build_encoder(self.model, store), folder / ENCODER)
        ir.save(build_cross_decoder(self.model, store), folder / GRAPH)

    def verify(self, folder: Path, progress: Progress, tokens: int) -> Quality:
        taught = verify_seq2seq.lesson(
            self.checkpoint.tokenizer, self.model, decoder_start(self.checkpoint), tokens
        )
        advance = progress.stage("verify", self._layers() + taught.steps)
        return verify_seq2seq.measure(self.checkpoint, self.model, folder, taught, advance)

    def facts(self) -> Facts:
        return onnxruntime_facts(self.precision)

    def _prepared(self, progress: Progress) -> Checkpoint:
        """What is written: the same model, its ranges made easier where it will be rounded."""
        if self.precision not in (Precision.INT8, Precision.INT4):
            return self.checkpoint
        return smooth_seq2seq(self.checkpoint, self.model, progress.stage("smooth", self._layers()))

    def _layers(self) -> int:
        return len(self.model.encoder.layers) + len(self.model.decoder.layers)
