"""Every recipe builds from a local folder, which is the way where the hub is out of reach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from build.cli import main
from build.recipe import load_recipe
from tests.models import tiny, tiny_seq2seq


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
