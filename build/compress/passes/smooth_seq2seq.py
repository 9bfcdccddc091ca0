"""Smoothing (`build.compress.passes.smooth`) of an encoder-decoder.

In a model that norms first, each norm feeds only products. In one that norms last, the norm is also the
residual, and only the end of the encoder can be smoothed: only the keys and values of the decoder read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from build.architecture.seq2seq import AnyLayer, EncoderDecoder
from build.checkpoint import Checkpoint
from build.compress.calibration import calibration_ids
from build.compress.smoothing import Pair, Peaks, rescaled
from build.reference import encoder_decoder as reference


def smooth_seq2seq(checkpoint: Checkpoint, model: EncoderDecoder, advance: Callable[[], None]) -> Checkpoint:
    """The same model, better to quantise; `advance` is called after each layer of the calibration."""
    peaks = Peaks()
    files = checkpoint.tokenizer
    sources = calibration_ids(files.json, model.encoder.max_positions)
    targets = calibration_ids(files.target or files.json, model.decoder.max_positions)
    reference.final_hidden(checkpoint, model, sources, targets, advance, peaks.observe)
    return rescaled(checkpoint, pairs(model), peaks)


def pairs(model: EncoderDecoder) -> Iterator[Pair]:
    """Each norm with the products that read it and nothing else does."""
    encoder, decoder = model.encoder, model.decoder
    memory = tuple(name for layer in decoder.layers for name in layer.cross.key_value.parts)
    yield encoder.final_norm or encoder.layers[-1].ffn_norm, memory
    if not model.norm_first:
        return
    layers: list[AnyLayer] = [*encoder.layers, *decoder.layers]
    for layer in layers:
        yield layer.attention_norm, layer.attention.qkv.parts
        yield layer.ffn_norm, layer.ffn.inner.parts
    for target in decoder.layers:
        yield target.cross_norm, target.cross.query.parts
