from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from build.dialects.encoding import Role
from build.dialects.tensorrt.precision import Kind, round_blocks, round_rows, stored_kind
from build.dialects.weight_file import WeightFile
from build.quantise import Floats, Precision

matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.just(64)),
    elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
)
scale_types = st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32])


@given(matrices, scale_types, st.sampled_from([Kind.INT8, Kind.FP8]))
def test_a_row_is_off_by_half_a_level_of_its_largest_value(matrix: Floats, scale: Any, kind: Kind) -> None:
    rounded = round_rows(matrix, kind, scale)
    # fp8 has 3 bits after the first; a bfloat16 scale may be off by 1/256, and clip the largest value.
    share = 0.5 / 127 + 1 / 256 if kind is Kind.INT8 else 1 / 16 + 1 / 256
    limit = np.abs(matrix).max(axis=1, keepdims=True) * share + 2.0**-13
    assert (np.abs(rounded.restored() - matrix) <= limit).all()


@given(matrices, scale_types, st.sampled_from([32, 64]))
def test_blocks_are_no_worse_than_with_nothing_clipped(matrix: Floats, scale: Any, size: int) -> None:
    rounded = round_blocks(matrix, size, scale)
    assert rounded.scales.shape == (len(matrix), 64 // size)
    largest = np.abs(matrix).reshape(len(matrix), -1, size).max(axis=2, keepdims=True)
    plain = np.maximum(largest / 7, 2.0**-14).astype(scale).astype(np.float32)
    blocks = matrix.reshape(len(matrix), -1, size)
    worst = ((np.rint(blocks / plain).clip(-8, 7) * plain - blocks) ** 2).sum()
    assert ((rounded.restored() - matrix) ** 2).sum() <= worst * 1.0001 + 1e-12


@given(matrices, scale_types)
def test_every_scale_is_positive_and_zero_stays_zero(matrix: Floats, scale: Any) -> None:
    matrix[:, ::2] = 0
    matrix[0] = 0
    for rounded in (
        round_rows(matrix, Kind.INT8, scale),
        round_rows(matrix, Kind.FP8, scale),
        round_blocks(matrix, 32, scale),
    ):
        assert (rounded.scales.astype(np.float32) > 0).all()
        assert not rounded.restored()[:, ::2].any()


def test_int4_keeps_8_bits_where_it_must() -> None:
    assert stored_kind(Precision.INT4, Role.ROBUST, True) is Kind.INT4
    assert stored_kind(Precision.INT4, Role.ROBUST, False) is Kind.INT8
    assert stored_kind(Precision.INT4, Role.SENSITIVE, True) is Kind.INT8
    assert stored_kind(Precision.BF16, Role.ROBUST, True) is None


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8])
@pytest.mark.parametrize("shape", [(3, 5), (4, 4), ()])
def test_a_stored_weight_reads_back(dtype: Any, shape: tuple[int, ...], tmp_path: Any) -> None:
    values = np.random.default_rng(0).integers(-8, 8, shape)
    array = np.asarray(values, np.float32).astype(dtype)
    with WeightFile(tmp_path / "weights") as file:
        file.add("first", np.zeros(3, np.int8))
        stored = file.add("array", array)
    assert isinstance(stored.const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(stored.const_value.numpy().astype(np.float32), array.astype(np.float32))
