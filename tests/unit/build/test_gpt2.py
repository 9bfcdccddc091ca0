"""GPT-2's checkpoints as they are on the hub: two ways of naming, transposed layers, saved masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from build.architecture import describe
from build.errors import BadInput, Unsupported
from tests.models import tiny

Stored = dict[str, NDArray[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "checkpoint", "gpt2")


def rewrite(folder: Path, weights: Stored) -> None:
    save_file(weights, folder / "model.safetensors")


def stored(folder: Path) -> Stored:
    return load_file(folder / "model.safetensors")


def without_prefix(weights: Stored) -> Stored:
    return {name.removeprefix("transformer."): values for name, values in weights.items()}


def with_masks(weights: Stored) -> Stored:
    mask = np.tril(np.ones((1, 1, 256, 256), np.bool_))
    masks = {f"transformer.h.{i}.attn.bias": mask for i in range(2)}
    return {**weights, **masks, "transformer.h.0.attn.masked_bias": np.array(-1e4, np.float32)}


def with_head(weights: Stored) -> Stored:
    return {**weights, "lm_head.weight": weights["transformer.wte.weight"].copy()}


FORMS = [without_prefix, with_masks, with_head, lambda weights: without_prefix(with_masks(weights))]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_checkpoint_is_the_same_model(folder: Path, form: Any) -> None:
    rewrite(folder, form(stored(folder)))
    checkpoint = tiny.opened(folder)
    checkpoint.require_exactly(describe(checkpoint.config).tensors())
    for name, values in tiny.tensors(tiny.config("gpt2")).items():
        np.testing.assert_array_equal(checkpoint.weights[name].read(), values, err_msg=name)
        assert checkpoint.weights[name].shape == values.shape


def test_a_cut_tensor_is_named(folder: Path) -> None:
    weights = stored(folder)
    weights["transformer.h.1.attn.c_attn.weight"] = np.zeros((64, 190), np.float32)
    rewrite(folder, weights)
    checkpoint = tiny.opened(folder)
    with pytest.raises(BadInput, match=r"c_attn_q\.weight has shape \(63, 64\), config\.json says"):
        checkpoint.require_exactly(describe(checkpoint.config).tensors())


def test_other_heads_than_the_language_models_are_refused(folder: Path) -> None:
    rewrite(folder, {**stored(folder), "score.weight": np.zeros((2, 64), np.float32)})
    checkpoint = tiny.opened(folder)
    with pytest.raises(Unsupported, match=r"score\.weight have no place in a gpt2"):
        checkpoint.require_exactly(describe(checkpoint.config).tensors())
