"""Engines for ONNX Runtime: a decoder is one graph, an encoder-decoder two graphs over one weight file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from build import verify
from build.architecture import layers
from build.architecture.parts import Architecture
from build.architecture.seq2seq import EncoderDecoder
from build.assembly import ALL_POSITIONS, ENCODER, GRAPH, WEIGHTS, Also, Facts, Progress
from build.checkpoint import Checkpoint
from build.compress.passes.compensate import compensated
from build.compress.passes.rotate import rotatable, rotate, spread
from build.compress.passes.smooth import smooth
from build.compress.passes.smooth_seq2seq import smooth_seq2seq
from build.dialects.contents import Scored, store_decoder, store_encoder_decoder
from build.dialects.onnxruntime.cross_decoder import build_cross_decoder
from build.dialects.onnxruntime.decoder import build_decoder, require_runnable
from build.dialects.onnxruntime.encoder import build_encoder
from build.dialects.onnxruntime.kernels import encode_index, runs_on_kernels
from build.dialects.onnxruntime.session import Session
from build.dialects.onnxruntime.store import Rounding, Store
from build.dialects.weight_file import WeightFile
from build.errors import BadInput, Unsupported
from build.generation import decoder_start
from build.quantise import Precision
from build.verify import Quality

KERNELS = "kernels.json"
_ABSENT = (Precision.BF16, Precision.FP8)  # precisions that ONNX Runtime has no operators for
# The share of the largest logit by which the served graph may differ from the verified one.
_SAME = 0.05


@dataclass(frozen=True)
class DecoderAssembly:
    """`carried`: blocks that the checkpoint holds are kept, and nothing else is done to it."""

    checkpoint: Checkpoint
    architecture: Architecture
    precision: Precision
    carried: bool = False

    def require_buildable(self) -> None:
        require_runnable(self.architecture, self.precision)
        _require_precision(self.checkpoint, self.precision)

    def write(self, folder: Path, progress: Progress) -> None:
        checkpoint, architecture, rounding = self._prepared(progress)
        advance = progress.stage("weights", layers(architecture))
        with WeightFile(folder / WEIGHTS) as file:
            store = Store(checkpoint, Precision.GGUF if self.carried else self.precision, file, rounding)
            store_decoder(store, architecture, advance)
        ir.save(build_decoder(architecture, store, Scored.LAST), folder / GRAPH)
        ir.save(build_decoder(architecture, store, Scored.ALL), folder / ALL_POSITIONS)
        if rounding and runs_on_kernels(architecture):
            (folder / KERNELS).write_bytes(encode_index(architecture, store))

    def _prepared(self, progress: Progress) -> tuple[Checkpoint, Architecture, Rounding | None]:
        """The same model, easier to round where it will be; a rounding where products round by rows."""
        checkpoint, architecture = self.checkpoint, self.architecture
        if self.carried or self.precision not in (Precision.INT8, Precision.INT4):
            return checkpoint, architecture, None
        advance = progress.stage("calibrate", layers(architecture))
        if self.precision is Precision.INT4 or not rotatable(architecture):
            return smooth(checkpoint, architecture, advance), architecture, None
        checkpoint, architecture = rotate(checkpoint, architecture)
        rows = compensated(checkpoint, architecture, advance)
        apart = [layer.attention.qkv for layer in architecture.layers if layer.attention.q_norm]
        apart += [layer.ffn.inner for layer in architecture.layers if layer.ffn.gated]
        return checkpoint, architecture, Rounding(rows, frozenset(spread(architecture)), frozenset(apart))

    def verify(self, folder: Path, progress: Progress, tokens: int, also: Also | None = None) -> Quality:
        """Scores the graph of all positions, then compares the one that is served with it."""
        text = verify.english(self.checkpoint, self.architecture, tokens)
        advance = progress.stage("verify", layers(self.architecture) + len(text.inputs))
        lesson = verify.learn(self.checkpoint, self.architecture, text, advance)
        length = text.inputs.shape[1]
        every = Session(folder / ALL_POSITIONS, length)
        quality = verify.read(every, lesson, advance)
        served = Session(folder / GRAPH, length)
        verify.require_same(verify.read_last(every, text), served, text, max(1, length // 2), _SAME, GRAPH)
        if also:
            also(lambda positions: Session(folder / ALL_POSITIONS, positions))
        (folder / ALL_POSITIONS).unlink()
        return quality

    def facts(self) -> Facts:
        return _facts(self.precision)


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
        _require_precision(self.checkpoint, self.precision)

    def write(self, folder: Path, progress: Progress) -> None:
        checkpoint = self.checkpoint
        if self.precision in (Precision.INT8, Precision.INT4):
            checkpoint = smooth_seq2seq(checkpoint, self.model, progress.stage("smooth", layers(self.model)))
        advance = progress.stage("weights", layers(self.model))
        with WeightFile(folder / WEIGHTS) as file:
            store = Store(checkpoint, self.precision, file)
            store_encoder_decoder(store, self.model, advance)
        ir.save(build_encoder(self.model, store), folder / ENCODER)
        ir.save(build_cross_decoder(self.model, store), folder / GRAPH)

    def verify(self, folder: Path, progress: Progress, tokens: int, also: Also | None = None) -> Quality:
        """Scores both graphs as they are served: an encoder run for each row, then steps of all rows."""
        text = verify.english(self.checkpoint, self.model, tokens)
        assert text.sources is not None
        rows, length = text.inputs.shape
        advance = progress.stage("verify", layers(self.model) + verify.steps(text, rows))
        lesson = verify.learn(self.checkpoint, self.model, text, advance)
        assert also is None, "a chain is for decoders"
        session = Session(folder / GRAPH, length, rows, folder / ENCODER, text.sources.shape[1])
        return verify.step(session, lesson, advance)

    def facts(self) -> Facts:
        return _facts(self.precision)


def _require_precision(checkpoint: Checkpoint, precision: Precision) -> None:
    """BadInput for what ONNX Runtime cannot compute, and when `gguf` could carry nothing over."""
    if precision in _ABSENT:
        known = ", ".join(each.value for each in Precision if each not in _ABSENT)
        raise BadInput(f"precision {precision.value}: engine onnxruntime takes {known}")
    if precision is Precision.GGUF and not any(weight.read_blocks for weight in checkpoint.weights.values()):
        raise BadInput("precision gguf: the source holds no Q4_0, Q4_1 or Q8_0 blocks: take int8")


def _facts(precision: Precision) -> Facts:
    return Facts("onnxruntime", "float16" if precision is Precision.FP16 else "float32")
