"""How much each product loses alone, and which get 8 bits for a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from build.architecture import describe
from build.architecture.parts import Projection
from build.compress.passes import gptq, sensitivity
from build.compress.passes.sensitivity import Options, Sensitivity, fill
from build.compress.products import Product, products
from build.compress.rounded import mean_bits, of_blocks
from build.errors import BadInput
from tests.unit.build.compress.lab import Seen, logits, opened, read_ids


def log_shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(axis=-1, keepdims=True)
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_divergence_is_that_of_the_whole_model_with_one_product_rounded(
    family: str, tied: bool, tmp_path: Path
) -> None:
    checkpoint = opened(tmp_path, family, tie_word_embeddings=tied)
    architecture, seen, ids = describe(checkpoint.config), Seen(), read_ids()
    rounded = gptq.rounded_products(checkpoint, gptq.Options(eight=(), windows=2), seen.tools())
    plain = log_shares(logits(checkpoint, ids).astype(np.float64))
    expected = []
    for product, blocks in rounded[:-1]:
        weights, start = dict(checkpoint.weights), 0
        for name, rows in zip(product.projection.parts, product.projection.rows, strict=True):
            values = blocks.take_rows(np.arange(start, start + rows))
            weights[name], start = of_blocks(weights[name], values), start + rows
        other = log_shares(logits(replace(checkpoint, weights=weights), ids).astype(np.float64))
        expected.append(float((np.exp(plain) * (plain - other)).sum(axis=-1).mean()))
    found = sensitivity.divergences(checkpoint, architecture, rounded, ids, lambda: None)
    assert [product.name for product, _ in rounded] == [each.name for each in products(architecture)]
    np.testing.assert_allclose(found[:-1], expected, rtol=2e-3, atol=1e-5)
    assert found[-1] > 1e-4


def test_a_product_that_rounding_does_not_change_has_no_divergence(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path)
    whole = []
    for product in products(describe(checkpoint.config)):
        weight = np.concatenate([checkpoint.weights[name].read() for name in product.projection.parts])
        whole.append((product, Exact(weight)))
    found = sensitivity.divergences(
        checkpoint,
        describe(checkpoint.config),
        whole,  # type: ignore[arg-type]
        read_ids(),
        lambda: None,
    )
    assert np.abs(found).max() < 1e-5


class Exact:
    """Blocks that lose nothing."""

    bits = 8

    def __init__(self, weight: NDArray[np.float32]) -> None:
        self._weight = weight

    def dequantise(self) -> NDArray[np.float32]:
        return self._weight

    def take_rows(self, order: NDArray[np.intp]) -> Exact:
        return Exact(self._weight[order])


tables = st.lists(st.tuples(st.integers(1, 9), st.floats(-0.01, 1, allow_nan=False)), min_size=1, max_size=12)


def table_of(entries: list[tuple[int, float]]) -> list[Sensitivity]:
    made = [Product("up", f"{i}", Projection((f"{i}",), (rows,), 32)) for i, (rows, _) in enumerate(entries)]
    return [Sensitivity(product, kl) for product, (_, kl) in zip(made, entries, strict=True)]


@given(tables, st.floats(4, 8))
def test_the_budget_is_kept_and_filled(entries: list[tuple[int, float]], bits: float) -> None:
    found = fill(table_of(entries), bits)
    assert [each.product.name for each in found] == [str(index) for index in range(len(entries))]
    sizes = np.array([each.product.weights for each in found])
    given_ = np.array([each.bits for each in found])
    spare = bits * sizes.sum() - (given_ * sizes).sum()
    assert spare >= -1e-6 * sizes.sum()
    left = [each for each in found if each.bits == 4 and each.divergence > 0]
    assert all(4 * each.product.weights > spare - 1e-6 for each in left)
    assert not any(each.bits == 8 and each.divergence <= 0 for each in found)


@given(tables, st.floats(4, 8))
def test_of_two_of_a_size_the_one_that_loses_more_comes_first(
    entries: list[tuple[int, float]], bits: float
) -> None:
    found = fill(table_of([(3, kl) for _, kl in entries]), bits)
    high = [each.divergence for each in found if each.bits == 8]
    assert all(each.divergence <= min(high) for each in found if high and each.bits == 4)


def test_what_loses_most_for_its_size_comes_first() -> None:
    found = fill(table_of([(1, 0.2), (8, 0.9), (1, 0.1)]), 4.4)
    assert [each.bits for each in found] == [8, 4, 4]


def test_the_checkpoint_has_the_bits_of_its_table(tmp_path: Path) -> None:
    checkpoint, seen = opened(tmp_path, tie_word_embeddings=True), Seen()
    made = sensitivity.run(checkpoint, Options(5.0), seen.tools())
    assert seen.is_done()
    (note,) = seen.notes
    rows = note["sensitivity"]
    for product, row in zip(products(describe(made.config)), rows, strict=True):
        assert (row["product"], row["weights"]) == (product.name, product.weights)
        reads = [made.weights[name].read_blocks for name in product.projection.parts]
        assert {read().bits for read in reads if read} == {row["bits"]}
    assert {row["bits"] for row in rows} == {4, 8}
    total = sum(row["weights"] for row in rows)
    assert mean_bits(made).levels == pytest.approx(sum(row["bits"] * row["weights"] for row in rows) / total)
    assert 4.6 < mean_bits(made).levels <= 5
    lost = [np.square(logits(each) - logits(checkpoint)).mean() for each in (made, _in_four(tmp_path))]
    assert lost[0] < 0.8 * lost[1]


def _in_four(folder: Path):  # type: ignore[no-untyped-def]
    checkpoint = opened(folder, tie_word_embeddings=True)
    return gptq.run(checkpoint, gptq.Options(eight=()), Seen().tools())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bits": 3.9}, "bits: 3.9, must be from 4 to 8"),
        ({"bits": 8.1}, "bits: 8.1, must be from 4 to 8"),
        ({"bits": 5.0, "scored": 0}, "scored: 0, must be at least 1"),
        ({"bits": 5.0, "windows": 0}, "windows: 0, must be at least 1"),
        ({"bits": 5.0, "block": 5}, "block: 5, must be one of 16, 32, 64, 128"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], reason: str) -> None:
    with pytest.raises(BadInput) as error:
        Options(**options)  # type: ignore[arg-type]
    assert str(error.value) == reason


def test_the_estimate_is_more_than_that_of_gptq(tmp_path: Path) -> None:
    checkpoint, options = opened(tmp_path), Options(5.0)
    sensitivity.require(checkpoint, options)
    more, less = sensitivity.cost(checkpoint, options), gptq.cost(checkpoint, options.rounding())
    assert more.operations > less.operations
    assert more.memory > less.memory
