"""A whole build of tiny encoder-decoders: what is published, and what the manifest says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from build.dialects.onnxruntime.session import Session
from build.engine import Result, build_engine
from build.errors import BadInput, Unsupported
from build.quantise import Precision
from build.recipe import Limits, Recipe, Task
from build.sources.resolve import open_source
from tests.contract import check_manifest
from tests.models import tiny_seq2seq as tiny

LOOSE = {precision.value: Limits() for precision in Precision}
FILES = ["encoder.onnx", "manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tokens.bin"]


class Stages:
    """A progress that remembers how many steps each stage has left."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}

    def stage(self, name: str, steps: int) -> Callable[[], None]:
        self.left[name] = steps

        def advance() -> None:
            self.left[name] -= 1

        return advance


def recipe(folder: Path, precision: Precision = Precision.FP32, **changes: Any) -> Recipe:
    return Recipe(name="mini", source=str(folder), precision=precision, limits=LOOSE, **changes)


def build(chosen: Recipe, repository: Path) -> Result:
    return build_engine(chosen, open_source, repository, Stages(), verify_tokens=96)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    written: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in written:
            written[kind] = tiny.write_folder(tmp_path_factory.mktemp(kind), kind)
        return written[kind]

    return folder


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_an_engine_of_each_kind_computes_what_the_reference_computes(
    kind: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    result = build(recipe(folders(kind)), tmp_path)
    assert sorted(path.name for path in result.target.iterdir()) == FILES
    quality = result.manifest["quality"]
    assert quality["max_logit_error"] < 1e-3
    assert quality["greedy_agreement"] == 1.0
    assert quality["tokens"] == 96


def test_the_manifest_has_what_a_server_needs(folders: Callable[[str], Path], tmp_path: Path) -> None:
    manifest = build(recipe(folders("marian-apart")), tmp_path).manifest
    check_manifest(manifest)
    assert manifest["task"] == "translate"
    model = manifest["model"]
    assert model["architecture"] == "encoder_decoder"
    assert (model["layers"], model["encoder_layers"]) == (3, 2)
    assert (model["heads"], model["kv_heads"], model["head_dim"]) == (2, 2, 32)
    assert model["vocab_size"] == len(tiny.TARGET_VOCAB)
    assert model["source_vocab_size"] == len(tiny.MARIAN_VOCAB)
    assert model["max_positions"] == model["max_source_positions"] == tiny.POSITIONS
    assert manifest["generation"]["decoder_start_token_id"] == len(tiny.TARGET_VOCAB) - 1
    assert manifest["generation"]["forced_eos_token_id"] == 0


@pytest.mark.parametrize(("kind", "expected"), [("bart", False), ("t5", True), ("marian", True)])
def test_pieces_of_sentencepiece_spell_a_space_too_many(
    kind: str, expected: bool, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    tokenizer = build(recipe(folders(kind)), tmp_path).manifest["tokenizer"]
    assert tokenizer["leading_space"] is expected


def test_int8_is_near_and_its_caches_are_fp32(folders: Callable[[str], Path], tmp_path: Path) -> None:
    manifest = build(recipe(folders("bart"), Precision.INT8), tmp_path).manifest
    assert manifest["model"]["kv_dtype"] == "float32"
    assert 0 < manifest["quality"]["max_logit_error"] < 0.5


def test_fp16_is_refused_before_a_gpu_would_compute_it_wrong(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=r"precision fp16: .* --engine tensorrt"):
        build(recipe(folders("bart"), Precision.FP16), tmp_path)


def test_what_is_published_runs(folders: Callable[[str], Path], tmp_path: Path) -> None:
    target = build(recipe(folders("t5"), Precision.INT8), tmp_path).target
    session = Session(target / "model.onnx", 8, 1, target / "encoder.onnx", 16)
    session.encode(0, np.arange(3, 19))
    assert session.decode(np.array([0])).shape == (1, len(tiny.T5_VOCAB))


def test_progress_ends_where_it_said_it_would(folders: Callable[[str], Path], tmp_path: Path) -> None:
    stages = Stages()
    build_engine(recipe(folders("bart"), Precision.INT8), open_source, tmp_path, stages, verify_tokens=96)
    assert dict.fromkeys(("source", "smooth", "weights", "verify"), 0) == stages.left


def test_max_context_is_at_most_what_the_decoder_has(folders: Callable[[str], Path], tmp_path: Path) -> None:
    build(recipe(folders("bart")), tmp_path)
    config = (tmp_path / "mini_engine" / "config.pbtxt").read_text()
    assert f'key: "max_context" value {{ string_value: "{tiny.POSITIONS}" }}' in config


def test_the_same_inputs_give_the_same_bytes(folders: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(recipe(folders("t5"), Precision.INT8), tmp_path / name)
    for file in FILES:
        one, other = ((tmp_path / name / "mini_engine" / "1" / file).read_bytes() for name in ("a", "b"))
        assert one == other


def test_t5_takes_the_settings_of_the_task(folders: Callable[[str], Path], tmp_path: Path) -> None:
    manifest = build(recipe(folders("t5"), task=Task.SUMMARIZE), tmp_path).manifest
    assert manifest["prefix"] == "summarize: "
    chosen = {
        key: manifest["generation"][key]
        for key in (
            "num_beams",
            "early_stopping",
            "length_penalty",
            "min_tokens",
            "max_tokens",
            "no_repeat_ngram_size",
        )
    }
    assert chosen == {
        "num_beams": 4,
        "early_stopping": "true",
        "length_penalty": 2.0,
        "min_tokens": 29,  # transformers counts the start token
        "max_tokens": 199,
        "no_repeat_ngram_size": 3,
    }


def test_a_vocabulary_that_lost_its_mask_is_served_without_it(tmp_path: Path) -> None:
    """bart-large-cnn: one id fewer in config.json than in tokenizer.json."""
    folder = tiny.write_folder(
        tmp_path / "checkpoint", vocab_size=tiny.KINDS["bart"].settings["vocab_size"] - 1
    )
    target = build(recipe(folder), tmp_path / "repository").target
    assert "<mask>" not in (target / "tokenizer.json").read_text()


def test_an_encoder_decoder_does_not_chat(folders: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="an encoder-decoder takes summarize, translate or complete"):
        build(recipe(folders("bart"), task=Task.CHAT), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_start_of_answers_is_needed(folders: Callable[[str], Path], tmp_path: Path) -> None:
    opened = open_source(str(folders("bart")))
    silent = {**opened.generation, "decoder_start_token_id": None}
    with pytest.raises(BadInput, match="add decoder_start_token_id to"):
        build_engine(
            recipe(folders("bart")), lambda _: replace(opened, generation=silent), tmp_path, Stages()
        )
