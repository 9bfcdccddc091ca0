"""A recipe with steps, from a tiny checkpoint to an engine whose manifest says what was done and lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from build import verify
from build.checkpoint import Checkpoint
from build.compress.lab import Compressed, apart, compress, require_apart
from build.dialects.onnxruntime.session import Session
from build.engine import Result, build_engine
from build.errors import BadInput, BuildError, Unsupported
from build.quantise import Precision
from build.recipe import Limits, Recipe, parse_recipe
from build.sources.resolve import open_source
from tests.contract import check_manifest
from tests.models import tiny, tiny_seq2seq


def stage(_name: str, _steps: int) -> Callable[[], None]:
    return lambda: None


class Stages:
    stage = staticmethod(stage)


def recipe(path: Path, steps: list[dict[str, Any]], **changes: Any) -> Recipe:
    loose: dict[str, Any] = {precision.value: {} for precision in Precision}
    return parse_recipe({"name": "mini", "source": str(path), "limits": loose, "step": steps, **changes})


def run(cache: Path, said: list[str], chosen: Recipe, checkpoint: Checkpoint) -> Compressed:
    return compress(chosen.steps, checkpoint, {}, stage, said.append, cache)


def build(chosen: Recipe, folder: Path) -> tuple[Result, list[str]]:
    said: list[str] = []
    made = build_engine(
        chosen,
        open_source,
        folder / "repository",
        Stages(),
        verify_tokens=96,
        compress=partial(run, folder / "cache", said),
    )
    return made, said


def test_carried_blocks_are_the_engine_and_the_manifest_says_so(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "model.gguf", "qwen2", Kind.Q4_1)
    result, said = build(recipe(path, [{"pass": "carry"}], budget={"kl": 0.5, "bytes": 9}), tmp_path)
    content = result.manifest
    check_manifest(content)
    assert content["precision"] == "int4"
    assert content["recipe"]["steps"] == [{"pass": "carry", "seed": 0}]
    lineage = content["lineage"]
    assert [step["pass"] for step in lineage["steps"]] == ["carry"]
    # Carrying changes no value, so the step loses nothing; the engine rounds its inputs.
    assert lineage["steps"][0]["against_root"]["kl"] == pytest.approx(0, abs=1e-6)
    assert lineage["steps"][0]["against_root"]["flips"] == 0
    assert 0 < lineage["engine"]["kl"] < 0.05
    assert lineage["engine"]["perplexity"] == pytest.approx(1, abs=0.05)
    assert lineage["budget"] == {"perplexity": None, "kl": 0.5, "flips": None, "bytes": 9}
    assert said[-1].startswith("step 1 of 1, carry: ")


def test_a_pruned_and_rounded_model_answers_as_its_own_checkpoint_does(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "model", "llama")
    steps = [{"pass": "prune-vocabulary", "keep": len(tiny.VOCAB) - 1}, {"pass": "gptq", "windows": 2}]
    result, _ = build(recipe(folder, steps), tmp_path)
    content = result.manifest
    check_manifest(content)
    assert content["model"]["vocab_size"] == len(tiny.VOCAB) - 1
    first, second = content["lineage"]["steps"]
    assert second["parent"] == first["key"]
    assert second["against_parent"]["kl"] != second["against_root"]["kl"]
    session = Session(result.target / "model.onnx", 64)
    assert session.prefill(0, np.array([5, 6, 7])).shape[-1] == len(tiny.VOCAB) - 1


def test_a_chain_that_rounds_by_rows_is_an_int8_engine(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "model", "llama")
    result, _ = build(recipe(folder, [{"pass": "compensate", "windows": 2}]), tmp_path)
    assert result.manifest["precision"] == "int8"
    assert (result.target / "kernels.json").is_file()


def test_an_engine_beyond_its_budget_is_not_published(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "model", "llama")
    chosen = recipe(folder, [{"pass": "gptq", "windows": 2}], budget={"kl": 1e-9, "bytes": 1e-3})
    with pytest.raises(
        BuildError, match=r"engine: kl [\d.e-]+, budget 1e-09; bytes [\d.]+, budget 0\.001: nothing"
    ):
        build(chosen, tmp_path)
    assert not (tmp_path / "repository" / "mini_engine").exists()


def test_chains_are_for_decoders(tmp_path: Path) -> None:
    folder = tiny_seq2seq.write_folder(tmp_path / "model", "bart")
    with pytest.raises(Unsupported, match="chains are for decoders"):
        build(recipe(folder, [{"pass": "gptq"}]), tmp_path)


def test_a_text_that_passes_read_is_not_scored() -> None:
    line = "one two three four five six seven eight nine ten eleven twelve thirteen"
    with pytest.raises(BadInput, match=r"scored text mine both have 'one two .* thirteen'"):
        require_apart([f"before {line}"], {"mine": f"{line} after"})
    assert apart([f"a {line}", "other words"], line) == ("other words",)


def test_the_build_scores_text_that_no_pass_reads() -> None:
    assert len(verify.prose()) > 100_000


def test_limits_of_a_precision_still_hold(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "model", "llama")
    chosen = recipe(folder, [{"pass": "gptq", "windows": 2}])
    strict = {**chosen.limits, "int4": Limits(logit_error=0.0)}
    with pytest.raises(BuildError, match="max logit error"):
        build(
            Recipe(**{**{k: getattr(chosen, k) for k in chosen.__dataclass_fields__}, "limits": strict}),
            tmp_path,
        )
