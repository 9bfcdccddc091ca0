"""Passes over encoder-decoders, made by transformers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from build.architecture import describe_model, view
from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint
from build.compress.passes import compensate, gptq, rotate, sensitivity, smooth
from build.compress.products import KINDS, products
from build.errors import Unsupported
from build.quantise import Floats
from build.reference import encoder_decoder
from build.sources.folder import open_folder
from tests.models import tiny_seq2seq as tiny
from tests.unit.build.compress.lab import Seen


def hidden(checkpoint: Checkpoint) -> Floats:
    model = describe_model(checkpoint.config)
    assert isinstance(model, EncoderDecoder)
    checkpoint.require_exactly(model.tensors())
    ids = np.random.default_rng(0).integers(5, 60, (2, 2, 20))
    return encoder_decoder.final_hidden(checkpoint, model, ids[0], ids[1], lambda: None)


@pytest.mark.parametrize("kind", ["bart", "marian-apart", "t5", "flan-t5"])
def test_every_product_of_an_encoder_decoder_gets_blocks(kind: str, tmp_path: Path) -> None:
    checkpoint = view(open_folder(tiny.write_folder(tmp_path, kind)))
    options, seen = gptq.Options(windows=2), Seen()
    gptq.require(checkpoint, options)
    made = gptq.run(checkpoint, options, seen.tools())
    assert seen.is_done()
    made.require_exactly(describe_model(made.config).tensors())
    found = set()
    for product in products(describe_model(made.config)):
        reads = [made.weights[name].read_blocks for name in product.projection.parts]
        bits = {read().bits for read in reads if read}
        assert None not in reads
        assert bits == ({8} if product.kind == "head" else {4})
        found.add(product.kind)
    assert found == set(KINDS)


def test_a_tied_head_of_an_encoder_decoder_keeps_8_bits(tmp_path: Path) -> None:
    checkpoint = view(open_folder(tiny.write_folder(tmp_path, "bart")))
    with pytest.raises(Unsupported, match="head: is the embedding of an encoder-decoder: keep it in 8 bits"):
        gptq.require(checkpoint, gptq.Options(eight=()))


@pytest.mark.parametrize("kind", ["bart", "marian-apart", "t5"])
def test_the_smoothed_model_computes_the_same(kind: str, tmp_path: Path) -> None:
    checkpoint, seen = view(open_folder(tiny.write_folder(tmp_path, kind))), Seen()
    made = smooth.run(checkpoint, smooth.Options(), seen.tools())
    assert seen.is_done()
    changed = [name for name, weight in made.weights.items() if weight is not checkpoint.weights[name]]
    assert changed
    np.testing.assert_allclose(hidden(made), hidden(checkpoint), atol=2e-4)


@pytest.mark.parametrize("module", [rotate, compensate])
def test_what_turns_the_stream_names_the_family(module: Any, tmp_path: Path) -> None:
    checkpoint = view(open_folder(tiny.write_folder(tmp_path, "t5")))
    with pytest.raises(Unsupported, match="rotate: t5 is an encoder-decoder: take smooth"):
        module.require(checkpoint, module.Options())


def test_sensitivities_are_measured_of_decoders_alone(tmp_path: Path) -> None:
    checkpoint = view(open_folder(tiny.write_folder(tmp_path, "t5")))
    with pytest.raises(Unsupported, match="sensitivity: t5 is an encoder-decoder: take gptq"):
        sensitivity.require(checkpoint, sensitivity.Options(5.0))
