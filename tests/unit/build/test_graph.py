"""What the server relies on: chunks, ragged batches and neighbours change nothing, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from build.architecture import describe
from build.dialects.contents import Scored
from build.dialects.onnxruntime.decoder import require_runnable
from build.errors import Unsupported
from build.quantise import Ids, Precision
from build.sources.gguf import open_gguf
from tests.models import tiny
from tests.models.engines import Engine, write_engine

PRECISIONS = [Precision.FP32, Precision.INT8, Precision.INT4]


FAMILIES = ["qwen2", "gpt2", "gemma3_text"]
CASES = [(family, precision) for family in FAMILIES for precision in PRECISIONS]
# Blocks of 4 bits with offsets, as the file has them.
CASES += [("qwen2", Precision.GGUF)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].value}")
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    family, precision = request.param
    if precision is Precision.GGUF:
        checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", family, Kind.Q4_1))
    else:
        checkpoint = tiny.opened(tiny.write_folder(tmp_path / "checkpoint", family))
    return write_engine(tmp_path / "engine", checkpoint, describe(checkpoint.config), precision)


def prompt(seed: int, length: int) -> Ids:
    return np.random.default_rng(seed).integers(3, len(tiny.VOCAB), length)


@pytest.mark.parametrize("cuts", [[1], [16, 32], [7, 8, 9], [63]])
def test_a_prefill_in_chunks_equals_one_prefill(engine: Engine, cuts: list[int]) -> None:
    # Attention over chunks differs in its last bits: in 1 of 120 prompts an input of 8 bits rounds away.
    ids = prompt(1, 64)
    whole, chunked = engine.session(), engine.session()
    expected = whole.prefill(0, ids)
    for chunk in np.split(ids, cuts):
        actual = chunked.prefill(0, chunk)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    assert np.array_equal(chunked.decode(ids[:1]).argmax(), whole.decode(ids[:1]).argmax())


@pytest.mark.parametrize("rows", [2, pytest.param(3, marks=pytest.mark.exact), 8, 17])
def test_a_ragged_batch_decodes_every_row_as_if_alone(engine: Engine, rows: int) -> None:
    together = engine.session(rows=rows)
    alone = [engine.session() for _ in range(rows)]
    for row, single in enumerate(alone):
        ids = prompt(row, 1 + 5 * row)
        assert np.array_equal(together.prefill(row, ids), single.prefill(0, ids))
    for step in range(4):
        ids = prompt(100 + step, rows)
        logits = together.decode(ids)
        for row, single in enumerate(alone):
            assert np.array_equal(logits[row], single.decode(ids[row : row + 1])[0])


def test_the_last_position_is_the_last_of_all_positions(engine: Engine) -> None:
    ids = prompt(3, 20)
    every = engine.session(Scored.ALL).prefill(0, ids)
    last = engine.session().prefill(0, ids)
    assert last.shape == (1, len(tiny.VOCAB))
    np.testing.assert_allclose(last[0], every[-1], rtol=0, atol=1e-5)


def test_the_graphs_share_one_weight_file(engine: Engine) -> None:
    graphs = sum(path.stat().st_size for path in engine.folder.glob("*.onnx"))
    assert graphs < 50_000  # names and nodes, no tensor
    assert (engine.folder / "weights").stat().st_size > graphs


def test_a_head_size_that_the_operator_refuses_is_refused_at_once() -> None:
    architecture = describe(tiny.config("llama", head_dim=24))
    with pytest.raises(Unsupported, match="head_dim 24 is not supported"):
        require_runnable(architecture, Precision.FP32)


def test_halves_that_could_not_hold_the_activations_are_refused() -> None:
    architecture = describe(tiny.config("gemma3_text"))
    require_runnable(architecture, Precision.INT8)
    with pytest.raises(Unsupported, match="activations of a gemma3_text leave the range of float16: take"):
        require_runnable(architecture, Precision.FP16)
