"""An index whose shapes do not fit its sizes is refused before the kernels see it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import ArtifactError
from engine.runners.kernel_runner import KernelWeights
from engine.runners.kernels import INDEX, read_index
from tests.models.kernel_engines import write_kernel_engine
from tests.models.tiny import VOCAB

SIZE = len(VOCAB)
Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products in parts, and norms of heads: hidden 64, 4 heads of 16 over 2, width 96."""
    return write_kernel_engine(tmp_path_factory.mktemp("index"), "qwen3")


def refused(folder: Path, target: Path, change: Callable[[Json], None], positions: int | None = None) -> str:
    index = copy.deepcopy(json.loads((folder / INDEX).read_text()))
    change(index)
    (target / INDEX).write_text(json.dumps(index))
    with pytest.raises(ArtifactError) as caught:
        read_index(target, positions)
    return str(caught.value).removeprefix("INTERNAL: kernels.json: ")


def resized(*path: str | int, to: list[Any]) -> Callable[[Json], None]:
    def change(index: Json) -> None:
        found: Any = index
        for step in path:
            found = found[step]
        found["shape"] = to

    return change


def replaced(**values: object) -> Callable[[Json], None]:
    return lambda index: index.update(values)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (resized("embedding", to=[SIZE, 80]), f"embedding: shape [{SIZE}, 80], must be [{SIZE}, 64]"),
        (resized("cosines", to=[256, 16]), "cosines: shape [256, 16], must be [256, 8]"),
        (resized("sines", to=[255, 8]), "sines: shape [255, 8], must be [256, 8]"),
        (resized("final_norm", to=[32]), "final_norm: shape [32], must be [64]"),
        (resized("head", 0, "weight", to=[64, 8]), "head: scales: shape [263], must be [8]"),
        (resized("layer", 1, "input_norm", to=[63]), "layer 1: input_norm: shape [63], must be [64]"),
        (resized("layer", 1, "ffn_norm", to=[1, 64]), "layer 1: ffn_norm: shape [1, 64], must be [64]"),
        (resized("layer", 0, "query_norm", to=[8]), "layer 0: query_norm: shape [8], must be [16]"),
        (resized("layer", 0, "key_norm", to=[64]), "layer 0: key_norm: shape [64], must be [16]"),
        (resized("layer", 1, "output", 0, "weight", to=[48, 64]),
         "layer 1: output: weight: shape [48, 64], must be [64, 64]"),
        (resized("layer", 1, "down", 0, "weight", to=[80, 64]),
         "layer 1: down: weight: shape [80, 64], must be [96, 64]"),
        (resized("layer", 1, "qkv", 1, "scales", to=[31]), "layer 1: qkv: scales: shape [31], must be [32]"),
    ],
)  # fmt: skip
def test_a_shape_that_does_not_fit_is_named_with_the_one_expected(
    folder: Path, tmp_path: Path, change: Callable[[Json], None], problem: str
) -> None:
    assert refused(folder, tmp_path, change) == f"{problem}; build the model again"


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [("gate", 80, [64, 96]), ("up", 112, [64, 96]), ("down", 80, [96, 64]), ("output", 32, [64, 64])],
)
def test_a_layer_of_another_width_is_refused(
    folder: Path, tmp_path: Path, name: str, rows: int, expected: list[int]
) -> None:
    """The first one is what memory is allocated for."""

    def change(index: Json) -> None:
        (part,) = index["layer"][1][name]
        part["weight"]["shape"][-1] = part["scales"]["shape"][-1] = rows

    found = [expected[0], rows]
    assert refused(folder, tmp_path, change) == (
        f"layer 1: {name}: weight: shape {found}, must be {expected}; build the model again"
    )


def test_parts_must_have_the_rows_together(folder: Path, tmp_path: Path) -> None:
    def change(index: Json) -> None:
        del index["layer"][0]["qkv"][2]

    assert refused(folder, tmp_path, change) == (
        "layer 0: qkv: weight: shape [64, 96], must be [64, 128]; build the model again"
    )


def test_a_bias_belongs_to_all_parts_or_to_none(folder: Path, tmp_path: Path) -> None:
    def change(index: Json) -> None:
        index["layer"][0]["qkv"][1]["bias"] = {"offset": 0, "shape": [32]}

    assert refused(folder, tmp_path, change) == (
        "layer 0: qkv: bias: of some parts, must be of all or of none; build the model again"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"hidden": 0}, "hidden: 0, must be a whole number in [1, 2147483647]"),
        ({"vocab": -5}, "vocab: -5, must be a whole number in [1, 2147483647]"),
        ({"layers": 2**31}, "layers: 2147483648, must be a whole number in [1, 2147483647]"),
        ({"heads": "4"}, "heads: '4', must be a whole number in [1, 2147483647]"),
        ({"kv_heads": True}, "kv_heads: True, must be a whole number in [1, 2147483647]"),
        ({"head_dim": 24}, "head_dim: 24, must be a multiple of 16"),
        ({"kv_heads": 3}, "heads: 4, must be a multiple of kv_heads, 3"),
        ({"layers": 3}, "layer: 2 of them, must be as many as layers, 3"),
    ],
)
def test_a_size_that_no_model_has_is_refused(
    folder: Path, tmp_path: Path, change: Json, problem: str
) -> None:
    assert refused(folder, tmp_path, replaced(**change)) == f"{problem}; build the model again"


@pytest.mark.parametrize("shape", [[], [-263, -64], [64.0, 263], ["64"], None])
def test_an_invalid_shape_is_refused(folder: Path, tmp_path: Path, shape: Any) -> None:
    assert refused(folder, tmp_path, resized("embedding", to=shape)).startswith("cannot be used (")


def test_tables_must_have_the_models_positions(folder: Path, tmp_path: Path) -> None:
    assert read_index(folder, 256)["cosines"]["shape"] == [256, 8]
    problem = refused(folder, tmp_path, lambda index: None, positions=512)
    assert problem == "cosines: shape [256, 8], must be [512, 8]; build the model again"


def test_weights_that_begin_between_two_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["final_norm"]["offset"] += 2
    (tmp_path / INDEX).write_text(json.dumps(index))
    (tmp_path / "model.onnx.data").symlink_to(folder / "model.onnx.data")
    with pytest.raises(ArtifactError, match=r"kernels.json: cannot be used \(ValueError"):
        KernelWeights(tmp_path)
