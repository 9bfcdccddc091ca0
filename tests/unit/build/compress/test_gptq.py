"""Blocks by GPTQ: the grid and the levels lose less of a product than the nearest do, and every product gets
them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from build.architecture import describe
from build.compress.passes import gptq
from build.compress.products import products
from build.compress.rounded import mean_bits, of_blocks
from build.dialects.encoding import Role, encode
from build.errors import BadInput
from build.quantise import Floats, Precision, quantise
from tests.models import tiny
from tests.unit.build.compress.lab import Seen, logits, opened


def correlated(seed: int, columns: int) -> tuple[Floats, Floats]:
    """A weight, and inputs of few directions whose channels differ in size, as those of a model are."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((columns // 3, columns)) * np.exp(random.standard_normal(columns))
    inputs = random.standard_normal((300, len(directions))) @ directions
    return random.standard_normal((48, columns)).astype(np.float32), inputs.astype(np.float32)


def lost(weight: Floats, rounded: Floats, inputs: Floats) -> float:
    return float(np.square(inputs @ (rounded - weight).T).sum())


@given(st.integers(0, 2**32 - 1), st.integers(33, 100))
def test_the_grid_loses_less_than_that_of_the_extremes(seed: int, columns: int) -> None:
    """By the squares of the weights' errors, each times its column's importance."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((5, columns)).astype(np.float32)
    importance = np.exp(2 * random.standard_normal(columns)).astype(np.float32)
    grid = gptq.block_grid(weight, importance, 4, 32)
    scales = grid.scales[grid.groups].T
    found = np.rint(weight / scales).clip(grid.lowest, grid.highest) * scales
    nearest = quantise(weight, 4, 32).dequantise()
    errors = [float((np.square(each - weight) * importance).sum()) for each in (found, nearest)]
    assert errors[0] <= errors[1] * (1 + 1e-5)


def test_what_is_on_a_symmetric_grid_stays() -> None:
    random = np.random.default_rng(0)
    weight = quantise(random.standard_normal((16, 96)).astype(np.float32), 4, 32).dequantise()
    inputs = random.standard_normal((300, 96)).astype(np.float32)
    found = gptq.round_product(weight, inputs, gptq.Options())
    np.testing.assert_allclose(found.dequantise(), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("columns", [96, 80])
def test_a_product_loses_less_than_half_of_what_nearest_rounding_costs(seed: int, columns: int) -> None:
    weight, inputs = correlated(seed, columns)
    found = gptq.round_product(weight, inputs, gptq.Options()).dequantise()
    assert lost(weight, found, inputs) < 0.5 * lost(weight, quantise(weight, 4, 32).dequantise(), inputs)


@pytest.mark.parametrize("zero", ["weight", "inputs"])
def test_zeros_are_rounded_too(zero: str) -> None:
    weight, inputs = correlated(0, 64)
    given_ = {"weight": (np.zeros_like(weight), inputs), "inputs": (weight, np.zeros_like(inputs))}
    found = gptq.round_product(*given_[zero], gptq.Options()).dequantise()
    assert np.isfinite(found).all()
    assert zero == "inputs" or not found.any()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_product_of_a_decoder_gets_blocks(family: str, tmp_path: Path) -> None:
    checkpoint, seen = opened(tmp_path, family), Seen()
    before = dict(checkpoint.weights)
    made = gptq.run(checkpoint, gptq.Options(eight=("head", "down")), seen.tools())
    assert seen.is_done()
    assert checkpoint.weights == before
    architecture = describe(made.config)
    for product in products(architecture):
        bits = 8 if product.kind in ("head", "down") else 4
        blocks = encode(made, product.projection, Precision.GGUF, Role.ROBUST)
        assert not isinstance(blocks, np.ndarray)
        assert (blocks.bits, blocks.block_size) == (bits, 32)
        read = np.concatenate([made.weights[name].read() for name in product.projection.parts])
        np.testing.assert_array_equal(blocks.dequantise(), read)
    kept = made.weights.keys() - {name for p in products(architecture) for name in p.projection.parts}
    assert all(made.weights[name] is before[name] for name in kept)
    assert np.abs(logits(made) - logits(checkpoint)).max() < 0.5 * np.abs(logits(checkpoint)).max()


def test_the_model_loses_less_than_with_nearest_rounding(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path)
    made = gptq.run(checkpoint, gptq.Options(), Seen().tools())
    nearest = dict(checkpoint.weights)
    for product in products(describe(checkpoint.config)):
        for name in product.projection.parts if product.kind != "head" else ():
            nearest[name] = of_blocks(nearest[name], quantise(nearest[name].read(), 4, 32))
    plain = logits(checkpoint)
    errors = [np.square(logits(each) - plain).mean() for each in (made, replace(checkpoint, weights=nearest))]
    assert errors[0] < 0.8 * errors[1]


def test_the_same_inputs_give_the_same_blocks(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path)
    first, second = (gptq.run(checkpoint, gptq.Options(windows=2), Seen().tools()) for _ in range(2))
    for name in checkpoint.weights:
        np.testing.assert_array_equal(first.weights[name].read(), second.weights[name].read())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_a_tied_head_in_4_bits_leaves_the_embedding_as_it_was(family: str, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, family, tie_word_embeddings=True)
    made = gptq.run(checkpoint, gptq.Options(eight=(), windows=2), Seen().tools())
    before, after = describe(checkpoint.config), describe(made.config)
    assert (before.tied_head, after.tied_head) == (True, False)
    assert made.weights[after.embedding] is checkpoint.weights[before.embedding]
    assert np.abs(logits(made) - logits(checkpoint)).max() < 0.5 * np.abs(logits(checkpoint)).max()
    eight = gptq.run(checkpoint, gptq.Options(windows=2), Seen().tools())
    assert describe(eight.config).tied_head


def test_products_in_8_bits_keep_the_blocks_of_the_source(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", "llama", GGMLQuantizationType.Q8_0)
    checkpoint = tiny.opened_gguf(path)
    made = gptq.run(checkpoint, gptq.Options(windows=1), Seen().tools())
    name = describe(made.config).head.parts[0]
    np.testing.assert_array_equal(made.weights[name].read(), checkpoint.weights[name].read())
    other = gptq.run(checkpoint, gptq.Options(block=16, windows=1), Seen().tools()).weights[name].read_blocks
    assert other is not None
    assert other().block_size == 16


@pytest.mark.parametrize(
    ("options", "levels", "stored"), [({}, 4.0, 5.0), ({"block": 64}, 4, 4.5), ({"bits": 8}, 8, 9)]
)
def test_bits_of_a_weight(options: dict[str, int], levels: float, stored: float, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, hidden_size=128, intermediate_size=128, head_dim=32)
    made = gptq.run(checkpoint, gptq.Options(eight=(), windows=1, **options), Seen().tools())
    assert (mean_bits(made).levels, mean_bits(made).stored) == (levels, stored)
    assert mean_bits(checkpoint).stored == 32


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bits": 3}, "bits: 3, must be one of 4, 8"),
        ({"block": 48}, "block: 48, must be one of 16, 32, 64, 128"),
        ({"eight": ("v",)}, "eight: 'v', must be one of qkv, output, up, down, cross, head"),
        ({"windows": 0}, "windows: 0, must be at least 1"),
        ({"damping": 1.0}, "damping: 1.0, must be between 0 and 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, int], reason: str) -> None:
    with pytest.raises(BadInput) as error:
        gptq.Options(**options)  # type: ignore[arg-type]
    assert str(error.value) == reason


def test_the_estimate_grows_with_the_model_and_the_windows(tmp_path: Path) -> None:
    small, large = opened(tmp_path / "a"), opened(tmp_path / "b", hidden_size=128, num_hidden_layers=3)
    one, two, three = (
        gptq.cost(checkpoint, gptq.Options(windows=count))
        for checkpoint, count in ((small, 1), (small, 8), (large, 8))
    )
    assert one.operations < two.operations < three.operations
    assert one.memory < two.memory < three.memory
