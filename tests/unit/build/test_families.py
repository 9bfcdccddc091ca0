"""Every family in int8, as it is built by default: what rounding costs stays within a recipe's limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from build.architecture import describe
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint, Weight
from build.compress.passes.smooth import smooth
from build.engine import build_engine
from build.quantise import Floats, Precision
from build.recipe import Recipe
from build.reference import decoder as reference
from build.sources.resolve import open_source
from tests.models import tiny
from tests.models.engines import write_engine
from tests.unit.build.test_engine import Stages

PROMPT = np.random.default_rng(1).integers(3, len(tiny.VOCAB), 64)
OUTLIERS, FACTOR = [3, 40], np.float32(200)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_build_by_default_is_within_the_limits(family: str, tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "checkpoint", family)
    recipe = Recipe(name="mini", source=str(folder))
    result = build_engine(recipe, open_source, tmp_path / "repository", Stages(), verify_tokens=512)
    assert result.manifest["precision"] == "int8"


def with_outliers(checkpoint: Checkpoint, architecture: Architecture) -> Checkpoint:
    """The same model with large channels behind its norms, as trained ones have: columns make up for them."""
    weights = dict(checkpoint.weights)
    for layer in architecture.layers:
        for norm, products in ((layer.input_norm, layer.attention.qkv), (layer.ffn_norm, layer.ffn.inner)):
            for name in norm.tensors():
                weights[name] = scaled(weights[name], FACTOR)
            for name in products.parts:
                weights[name] = scaled(weights[name], 1 / FACTOR)
    return replace(checkpoint, weights=weights)


def scaled(weight: Weight, by: np.float32) -> Weight:
    values = weight.read().copy()
    values[..., OUTLIERS] *= by
    return Weight(weight.shape, lambda: values)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_smoothing_takes_outliers_out_of_norms_and_their_biases(family: str, tmp_path: Path) -> None:
    plain = tiny.opened(tiny.write_folder(tmp_path / "checkpoint", family))
    architecture = describe(plain.config)
    checkpoint = with_outliers(plain, architecture)
    expected = logits(checkpoint, architecture)
    errors = []
    for name, one in (("rough", checkpoint), ("smooth", smooth(checkpoint, architecture, lambda: None))):
        np.testing.assert_allclose(logits(one, architecture), expected, atol=1e-3)
        engine = write_engine(tmp_path / name, one, architecture, Precision.INT8)
        errors.append(np.sqrt(np.mean((engine.all_logits(PROMPT) - expected) ** 2)))
    assert errors[1] < errors[0] / 3


def logits(checkpoint: Checkpoint, architecture: Architecture) -> Floats:
    hidden = reference.final_hidden(checkpoint, architecture, PROMPT[None], lambda: None)[0]
    product: Floats = hidden @ reference.head_weight(checkpoint, architecture).T
    return product
