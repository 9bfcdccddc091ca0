from __future__ import annotations

from dataclasses import replace

import gguf.quants
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from build.quantise import Blocks, Floats, quantise, stack

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 70)),
    elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
)
bit_widths = st.sampled_from([4, 8])
block_sizes = st.sampled_from([16, 32])


@given(matrices, bit_widths, block_sizes)
def test_an_error_is_at_most_half_a_level(matrix: Floats, bits: int, block_size: int) -> None:
    blocks = quantise(matrix, bits, block_size)
    assert blocks.dequantise().shape == matrix.shape
    # At 4 bits the value opposite to the extreme one is a whole level out of range.
    tolerance = np.abs(blocks.scales).max() * (0.5 if bits == 8 else 1.0)
    assert np.abs(blocks.dequantise() - matrix).max() <= tolerance * 1.001 + 1e-30


@given(matrices, bit_widths, block_sizes)
def test_quantising_what_was_quantised_changes_nothing(matrix: Floats, bits: int, block_size: int) -> None:
    once = quantise(matrix, bits, block_size).dequantise()
    twice = quantise(once, bits, block_size).dequantise()
    np.testing.assert_allclose(twice, once, rtol=1e-5, atol=1e-30)


@given(matrices, bit_widths)
def test_zero_stays_zero(matrix: Floats, bits: int) -> None:
    matrix[:, ::2] = 0
    assert not quantise(matrix, bits, 16).dequantise()[:, ::2].any()


@given(matrices)
def test_widening_is_exact(matrix: Floats) -> None:
    four = quantise(matrix, 4, 16)
    assert four.widened().bits == 8
    np.testing.assert_array_equal(four.widened().dequantise(), four.dequantise())


@given(matrices, bit_widths)
def test_packing_keeps_every_level(matrix: Floats, bits: int) -> None:
    blocks = quantise(matrix, bits, 16)
    packed = blocks.packed()
    assert packed.shape == (*blocks.scales.shape, 16 * bits // 8)
    if bits == 4:
        unpacked = np.stack([packed & 15, packed >> 4], axis=-1).reshape(blocks.levels.shape)
        packed = unpacked
    np.testing.assert_array_equal(packed, blocks.levels)


def test_stacked_rows_stand_in_order_and_mixed_widths_are_widened() -> None:
    matrices_ = [np.arange(64, dtype=np.float32).reshape(2, 32) - shift for shift in (0, 20, 50)]
    parts = [quantise(m, bits, 32) for m, bits in zip(matrices_, (4, 8, 4), strict=True)]
    stacked = stack(parts)
    assert (stacked.bits, stacked.rows) == (8, 6)
    expected = np.concatenate([part.dequantise() for part in parts])
    np.testing.assert_array_equal(stacked.dequantise(), expected)
    assert stack(parts[:1]).bits == 4


def test_offsets_of_blocks_follow_their_rows() -> None:
    matrix = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    plain = quantise(matrix, 4, 32)
    offsets = np.arange(6, dtype=np.float32).reshape(3, 2)
    shifted = replace(plain, offsets=offsets)
    expected = plain.dequantise() + np.repeat(offsets, 32, axis=1)
    np.testing.assert_array_equal(shifted.dequantise(), expected)
    np.testing.assert_array_equal(shifted.widened().dequantise(), expected)
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(shifted.take_rows(order).dequantise(), expected[order])
    both = stack([plain, shifted, quantise(matrix, 8, 32)])
    np.testing.assert_array_equal(both.dequantise()[:6], np.concatenate([plain.dequantise(), expected]))


def test_rows_can_be_taken_in_any_order() -> None:
    blocks = quantise(np.arange(96, dtype=np.float32).reshape(3, 32), 8, 32)
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(blocks.take_rows(order).dequantise(), blocks.dequantise()[order])


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0])
def test_our_int4_and_int8_are_those_of_gguf(kind: GGMLQuantizationType) -> None:
    """Same convention, so a block of theirs is one of ours (their scales are fp16)."""
    matrix = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    theirs = gguf.quants.dequantize(gguf.quants.quantize(matrix, kind), kind)
    bits = 4 if kind is GGMLQuantizationType.Q4_0 else 8
    ours = quantise(matrix, bits, 32)
    error = np.abs(ours.dequantise() - theirs)
    assert np.count_nonzero(error > 2e-3) <= matrix.size * 0.02


def test_a_shape_that_does_not_fit_is_our_bug() -> None:
    with pytest.raises(AssertionError):
        Blocks(8, 32, np.zeros((1, 2, 16), np.uint8), np.zeros((1, 1), np.float32))
