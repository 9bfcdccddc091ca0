"""What the server relies on: neighbours change nothing, bit for bit, and precisions stay near fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from build.compress.passes.smooth_seq2seq import smooth_seq2seq
from build.quantise import Ids, Precision
from build.reference import encoder_decoder as reference
from tests.models import tiny_seq2seq as tiny
from tests.models.seq2seq_engines import Engine, open_model, write_engine

FAMILIES = ("bart", "marian", "pegasus", "t5")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(tmp_path_factory.mktemp(request.param), request.param)


def engine_of(folder: Path, precision: Precision, at: Path) -> Engine:
    return write_engine(at / precision.value, *open_model(folder), precision)


def text(seed: int, length: int) -> Ids:
    return np.random.default_rng(seed).integers(3, 60, length)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.INT4])
def test_a_ragged_batch_decodes_every_row_as_if_alone(
    folder: Path, precision: Precision, tmp_path: Path
) -> None:
    engine, rows = engine_of(folder, precision, tmp_path), 5
    together, alone = engine.session(rows), [engine.session() for _ in range(rows)]
    for row, single in enumerate(alone):
        for session, place in ((together, row), (single, 0)):
            session.encode(place, text(row, 1 + 20 * row))
        for step in range(3 * row):  # rows begin at different times
            together.lengths[row] = step
            ids = np.concatenate([text(50, row), text(60 + row + step, 1)])
            kept = together.lengths[:row].copy()
            together.decode(ids)
            together.lengths[:row] = kept
            single.decode(ids[-1:])
    for step in range(4):
        ids = text(100 + step, rows)
        logits = together.decode(ids)
        for row, single in enumerate(alone):
            assert np.array_equal(logits[row], single.decode(ids[row : row + 1])[0])


def test_a_new_source_replaces_the_old_one_whatever_its_length(folder: Path, tmp_path: Path) -> None:
    engine = engine_of(folder, Precision.INT8, tmp_path)
    fresh, used = engine.session(), engine.session()
    used.encode(0, text(1, 90))
    used.decode(np.array([5]))
    for session in (fresh, used):
        session.encode(0, text(2, 4))
    assert np.array_equal(fresh.decode(np.array([7])), used.decode(np.array([7])))


@pytest.mark.parametrize(("precision", "most"), [(Precision.FP16, 0.02), (Precision.INT8, 0.1)])
def test_precisions_stay_near_fp32(folder: Path, precision: Precision, most: float, tmp_path: Path) -> None:
    sources, targets = [text(1, 30), text(2, 5)], np.stack([text(3, 20), text(4, 20)])
    exact, rounded = (
        engine_of(folder, each, tmp_path).logits(sources, targets) for each in (Precision.FP32, precision)
    )
    error = np.abs(exact - rounded).max() / np.abs(exact).max()
    assert 0 < error < most


def test_both_graphs_share_one_weight_file(folder: Path, tmp_path: Path) -> None:
    engine = engine_of(folder, Precision.INT8, tmp_path)
    graphs = sum(path.stat().st_size for path in engine.folder.glob("*.onnx"))
    assert graphs < 60_000
    assert (engine.folder / "model.onnx.data").stat().st_size > graphs


def test_a_smoothed_model_computes_the_same(folder: Path) -> None:
    checkpoint, model = open_model(folder)
    smoothed = smooth_seq2seq(checkpoint, model, lambda: None)
    moved = [name for name in checkpoint.weights if smoothed.weights[name] is not checkpoint.weights[name]]
    assert any("encoder_attn.k_proj" in name or "EncDecAttention.k" in name for name in moved)
    assert (len(moved) > 20) == model.norm_first
    sources, targets = text(1, 24)[None], text(2, 24)[None]
    before, after = (
        reference.final_hidden(each, model, sources, targets, lambda: None) for each in (checkpoint, smoothed)
    )
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)
