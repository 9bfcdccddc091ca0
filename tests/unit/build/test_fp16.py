"""Precision fp16, which is for GPUs: the CPU runs the same graph, with casts that it puts in itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from build.architecture import describe
from build.dialects.contents import Scored
from build.engine import build_engine
from build.quantise import Precision
from build.recipe import Recipe
from build.sources.resolve import open_source
from tests.models import tiny
from tests.models.engines import Engine, write_engine
from tests.unit.build.test_engine import Stages

PROMPT = np.random.default_rng(1).integers(3, len(tiny.VOCAB), 29)
DECODERS = ["llama", "qwen2", "qwen3", "gpt2", "gemma3_text"]


@pytest.fixture(params=DECODERS)
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> dict[Precision, Engine]:
    checkpoint = tiny.opened(tiny.write_folder(tmp_path / "checkpoint", request.param))
    architecture = describe(checkpoint.config)
    return {
        precision: write_engine(tmp_path / precision.value, checkpoint, architecture, precision)
        for precision in (Precision.FP32, Precision.FP16)
    }


def test_it_answers_as_fp32_does(engines: dict[Precision, Engine]) -> None:
    """Halves have 11 bits: logits of up to 8 differ in the third digit, and these choices by more."""
    full, half = engines[Precision.FP32], engines[Precision.FP16]
    expected = full.all_logits(PROMPT)
    error = np.abs(half.all_logits(PROMPT) - expected).max()
    assert 0 < error < 0.01 * np.abs(expected).max()
    assert half.greedy(PROMPT, 12) == full.greedy(PROMPT, 12)


def test_a_ragged_batch_decodes_every_row_as_if_alone(engines: dict[Precision, Engine]) -> None:
    half = engines[Precision.FP16]
    together = half.session(rows=3)
    for row in range(3):
        together.prefill(row, PROMPT[: 5 + row])
    logits = together.decode(PROMPT[:3])
    for row in range(3):
        alone = half.session()
        alone.prefill(0, PROMPT[: 5 + row])
        assert np.array_equal(logits[row], alone.decode(PROMPT[row : row + 1])[0])


def test_weights_and_caches_are_halves_and_logits_are_not(engines: dict[Precision, Engine]) -> None:
    full, half = engines[Precision.FP32], engines[Precision.FP16]
    graph = onnx.load(half.folder / f"{Scored.LAST.value}.onnx", load_external_data=False).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    caches = {kind for name, kind in kinds.items() if name.startswith(("past_", "present_"))}
    assert caches == {onnx.TensorProto.FLOAT16}
    assert kinds["logits"] == onnx.TensorProto.FLOAT
    stored = {tensor.data_type for tensor in graph.initializer if tensor.external_data}
    assert stored == {onnx.TensorProto.FLOAT16}
    sizes = [(engine.folder / "weights").stat().st_size for engine in (full, half)]
    assert sizes[1] < 0.7 * sizes[0]


def test_a_build_says_what_its_cache_holds(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "checkpoint", "gpt2")
    recipe = Recipe(name="mini", source=str(folder), precision=Precision.FP16)
    manifest = build_engine(recipe, open_source, tmp_path / "repository", Stages(), verify_tokens=96).manifest
    assert (manifest["precision"], manifest["model"]["kv_dtype"]) == ("fp16", "float16")
    assert manifest["quality"]["max_logit_error"] < 0.1
