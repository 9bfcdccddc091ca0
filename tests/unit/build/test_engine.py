"""A whole build on a tiny checkpoint: what is published, and what is not when something is wrong."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from build.checkpoint import Checkpoint, Weight
from build.dialects.onnxruntime.session import Session
from build.engine import Result, build_engine
from build.errors import BadInput, BuildError
from build.quantise import Floats, Precision
from build.recipe import Limits, Recipe, Task
from build.sources.resolve import open_source
from tests.contract import check_manifest
from tests.models import tiny

LOOSE = {precision.value: Limits() for precision in Precision}


@dataclass
class Stages:
    """A progress that remembers how many steps each stage promised and took."""

    promised: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)

    def stage(self, name: str, steps: int) -> Callable[[], None]:
        self.promised[name], self.taken[name] = steps, 0

        def advance() -> None:
            self.taken[name] += 1

        return advance


def recipe(folder: Path, precision: Precision = Precision.INT8) -> Recipe:
    return Recipe(name="mini", source=str(folder), precision=precision, limits=LOOSE)


def build(
    chosen: Recipe,
    repository: Path,
    open_: Callable[[str], Checkpoint] = open_source,
    force: bool = False,
) -> Result:
    return build_engine(chosen, open_, repository, Stages(), force=force, verify_tokens=96)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "checkpoint", "qwen2")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def test_a_repository_holds_four_models_and_one_engine(folder: Path, repository: Path) -> None:
    result = build(recipe(folder), repository)
    assert sorted(path.name for path in repository.iterdir()) == [
        "mini",
        "mini_detokenizer",
        "mini_engine",
        "mini_tokenizer",
    ]
    for model in repository.iterdir():
        assert sorted(path.name for path in model.iterdir()) == ["1", "config.pbtxt"]
    assert result.target == repository / "mini_engine" / "1"
    assert sorted(path.name for path in result.target.iterdir()) == [
        "chat_template.jinja",
        "kernels.json",
        "manifest.json",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
        "tokens.bin",
    ]


def test_the_manifest_describes_every_file(folder: Path, repository: Path) -> None:
    result = build(recipe(folder), repository)
    text = (result.target / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest == result.manifest
    check_manifest(manifest)
    assert manifest["manifest_version"] == 2
    assert manifest["task"] == "chat"
    digests = hashes(result.target)
    del digests["manifest.json"]
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == digests
    assert manifest["size_bytes"] == sum(entry["bytes"] for entry in manifest["files"].values())
    assert manifest["generation"]["eos_token_ids"] == [2, 0]
    assert manifest["generation"]["temperature"] == 0.0
    assert manifest["tokenizer"] == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "special_tokens": {
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
        },
        "leading_space": False,
    }
    assert manifest["model"]["family"] == "qwen2"
    assert manifest["quality"]["tokens"] == 96
    assert str(folder.parent) not in text


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8, Precision.INT4])
def test_the_same_inputs_give_the_same_bytes(precision: Precision, folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(recipe(folder, precision), tmp_path / name)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert "mini_engine/1/model.onnx.data" in hashes(tmp_path / "a")


def test_fp32_computes_what_the_reference_computes(folder: Path, repository: Path) -> None:
    quality = build(recipe(folder, Precision.FP32), repository).manifest["quality"]
    assert quality["max_logit_error"] < 1e-3
    assert quality["greedy_agreement"] == 1.0
    assert quality["perplexity"] == pytest.approx(quality["reference_perplexity"], rel=1e-4)


def test_what_is_published_runs(folder: Path, repository: Path) -> None:
    target = build(recipe(folder), repository).target
    session = Session(target / "model.onnx", 32)
    assert session.prefill(0, np.arange(3, 20)).shape == (1, len(tiny.VOCAB))


def test_progress_ends_where_it_said_it_would(folder: Path, repository: Path) -> None:
    stages = Stages()
    build_engine(recipe(folder), open_source, repository, stages, verify_tokens=96)
    assert stages.taken == stages.promised
    assert set(stages.promised) >= {"weights", "verify"}


def test_no_sequence_is_longer_than_the_models_positions(folder: Path, repository: Path) -> None:
    build(recipe(folder), repository)
    config = (repository / "mini_engine" / "config.pbtxt").read_text()
    assert 'key: "max_context" value { string_value: "256" }' in config


def test_a_config_that_was_edited_is_kept(folder: Path, repository: Path) -> None:
    build(recipe(folder), repository)
    config = repository / "mini_engine" / "config.pbtxt"
    config.write_text("# mine\n")
    build(recipe(folder), repository, force=True)
    assert config.read_text() == "# mine\n"


def test_an_engine_that_exists_is_refused_before_anything_is_read(folder: Path, repository: Path) -> None:
    build(recipe(folder), repository)

    def never(_: str) -> Checkpoint:
        pytest.fail("the source was opened")

    with pytest.raises(BadInput, match="exists: add --force"):
        build(recipe(folder), repository, never)


def spoiled(read: Callable[[], Floats]) -> Callable[[str], Checkpoint]:
    """A source whose last layer cannot be read, or reads wrong."""

    def open_(source: str) -> Checkpoint:
        checkpoint = open_source(source)
        name = "model.layers.1.mlp.down_proj.weight"
        weight = Weight(checkpoint.weights[name].shape, read)
        return replace(checkpoint, weights={**checkpoint.weights, name: weight})

    return open_


def disk_full() -> Floats:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_publishes_nothing(folder: Path, repository: Path) -> None:
    with pytest.raises(BuildError, match="no space left on the device: nothing was published"):
        build(recipe(folder, Precision.FP32), repository, spoiled(disk_full))
    assert list(repository.iterdir()) == []


def test_a_full_disk_leaves_the_old_engine(folder: Path, repository: Path) -> None:
    build(recipe(folder), repository)
    before = hashes(repository)
    with pytest.raises(BuildError, match="no space left"):
        build(recipe(folder, Precision.FP32), repository, spoiled(disk_full), force=True)
    assert hashes(repository) == before


def test_quality_below_the_limits_publishes_nothing(folder: Path, repository: Path) -> None:
    strict = replace(
        recipe(folder, Precision.INT4),
        limits={"int4": Limits(logit_error=1e-6, perplexity=0.5, agreement=1.1)},
    )
    with pytest.raises(BuildError) as caught:
        build(strict, repository)
    for part in ("max logit error", "limit 1e-06", "times the reference's, limit 0.5", "at least 1.1"):
        assert part in str(caught.value)
    assert list(repository.iterdir()) == []


def test_weights_that_are_no_numbers_publish_nothing(folder: Path, repository: Path) -> None:
    broken = spoiled(lambda: np.full((64, 96), np.nan, np.float32))
    limited = replace(recipe(folder, Precision.FP32), limits={"fp32": Limits(perplexity=2.0)})
    with pytest.raises(BuildError, match="nan"):
        build(limited, repository, broken)
    assert list(repository.iterdir()) == []


def test_a_chat_model_needs_a_template(folder: Path, repository: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(BadInput, match="has no chat template"):
        build(replace(recipe(folder), task=Task.CHAT), repository)
    result = build(recipe(folder), repository)
    assert result.manifest["task"] == "complete"
    assert not (result.target / "chat_template.jinja").exists()


def test_an_end_of_sequence_is_needed(tmp_path: Path, repository: Path) -> None:
    folder = tiny.write_folder(tmp_path / "endless", eos_token_id=None)
    (folder / "generation_config.json").unlink()
    with pytest.raises(BadInput, match="names no end of sequence"):
        build(recipe(folder), repository)


def test_gguf_precision_needs_blocks(folder: Path, repository: Path) -> None:
    with pytest.raises(BadInput, match="holds no Q4_0, Q4_1 or Q8_0 blocks: take int8"):
        build(recipe(folder, Precision.GGUF), repository)


def test_a_gguf_of_q8_0_is_carried_over(tmp_path: Path, repository: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", "qwen2", Kind.Q8_0)
    result = build(recipe(path, Precision.GGUF), repository)
    assert result.manifest["source"]["kind"] == "gguf"
    assert result.manifest["quality"]["greedy_agreement"] > 0.9
