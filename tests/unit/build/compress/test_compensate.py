"""A step that rounds by rows, and the int8 engine that takes these rows as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from build.architecture import describe
from build.assemble_onnxruntime import DecoderAssembly
from build.compress.passes import compensate, rotate
from build.compress.products import products
from build.dialects.onnxruntime.session import Session
from build.quantise import Floats, Precision, quantise_rows
from tests.unit.build.compress.lab import Seen, logits, opened, read_ids


@pytest.mark.parametrize("tied", [True, False])
def test_every_product_of_the_rotated_model_has_rows(tied: bool, tmp_path: Path) -> None:
    checkpoint, seen = opened(tmp_path, tie_word_embeddings=tied), Seen()
    made = compensate.run(checkpoint, compensate.Options(), seen.tools())
    assert seen.is_done()
    turned, architecture = rotate.rotate(checkpoint, describe(checkpoint.config))
    for name in (name for product in products(architecture) for name in product.projection.parts):
        read, weight = made.weights[name].read_rows, turned.weights[name].read()
        assert read is not None
        np.testing.assert_array_equal(read().scales, quantise_rows(weight).scales)
        np.testing.assert_array_equal(read().dequantise(), made.weights[name].read())
        assert not np.array_equal(read().levels, quantise_rows(weight).levels)
    assert rms(logits(made) - logits(checkpoint)) < 0.03 * rms(logits(checkpoint))


@pytest.mark.exact
def test_an_int8_engine_has_the_rows_of_the_step(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "model", tie_word_embeddings=True)
    made = compensate.run(checkpoint, compensate.Options(windows=1), Seen().tools())
    assembly = DecoderAssembly(made, describe(made.config), Precision.INT8)
    assembly.write(tmp_path, Seen())
    stored = (tmp_path / "model.onnx.data").read_bytes()
    for name in ("lm_head.weight", "model.layers.1.mlp.down_proj.weight"):
        read = made.weights[name].read_rows
        assert read is not None
        assert np.ascontiguousarray(read().levels.T).tobytes() in stored
    session, ids = Session(tmp_path / "model.onnx", 64), read_ids()[0]
    found, expected = session.prefill(0, ids)[-1], logits(made)[0, -1]
    assert rms(found - expected) < 0.1 * rms(expected)


def rms(values: Floats) -> float:
    return float(np.sqrt(np.square(values).mean()))
