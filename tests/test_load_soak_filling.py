from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loadtest import artifacts
from loadtest.errors import BenchError
from loadtest.soak.filling import fill, sizes

ROOT = Path(__file__).parent.parent


def test_the_sizes_are_those_of_the_engines_config() -> None:
    assert sizes(artifacts.parameters_of(ROOT / "model_repository", "smollm2")) == (16, 2048)


@pytest.mark.parametrize("parameters", [{}, {"slots": "many", "max_context": "2048"}, {"slots": "4"}])
def test_a_config_without_them_is_an_error_that_names_them(parameters: dict[str, str]) -> None:
    with pytest.raises(BenchError, match="slots or max_context"):
        sizes(parameters)


def test_slots_that_cannot_be_filled_are_told_of_and_end_nothing(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "model_repository" / "smollm2_engine",
        tmp_path / "smollm2_engine",
        ignore=shutil.ignore_patterns("1"),
    )
    config = tmp_path / "smollm2_engine" / "config.pbtxt"
    config.write_text(config.read_text().replace('"slots"', '"rows"'))
    said = fill("grpc://127.0.0.1:1", tmp_path, "smollm2")
    assert said.startswith("the slots are not filled beforehand")
    assert "KeyError('slots')" in said
