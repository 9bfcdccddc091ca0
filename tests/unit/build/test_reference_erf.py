from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from build.reference.erf import erf


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30))
def test_it_is_that_of_the_standard_library(values: list[float]) -> None:
    found = erf(np.array(values, np.float32))
    assert np.abs(found - [math.erf(value) for value in values]).max() < 1e-7


def test_all_of_its_range() -> None:
    values = np.linspace(-7, 7, 20_001, dtype=np.float32)
    assert np.abs(erf(values) - [math.erf(value) for value in values.tolist()]).max() < 1e-7


def test_a_nan_stays_a_nan() -> None:
    """A damaged weight must show in the quality, not vanish."""
    assert np.isnan(erf(np.array([np.nan], np.float32)))[0]
