"""Tables that no checkpoint holds, against transformers' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from build.architecture.positions import distance_buckets, sinusoids
from build.architecture.seq2seq import RelativeBias

torch = pytest.importorskip("torch")
marian = pytest.importorskip("transformers.models.marian.modeling_marian")
t5 = pytest.importorskip("transformers.models.t5.modeling_t5")


@given(rows=st.integers(1, 200), size=st.integers(2, 65))
def test_sinusoids_are_those_of_marian(rows: int, size: int) -> None:
    expected = marian.MarianSinusoidalPositionalEmbedding(rows, size).create_weight()
    assert np.array_equal(sinusoids(rows, size), expected.numpy())


@example(buckets=38, more=30, bidirectional=True, beyond=1)
@given(
    buckets=st.integers(4, 40),
    more=st.integers(1, 200),
    bidirectional=st.booleans(),
    beyond=st.integers(1, 999),
)
def test_buckets_are_those_of_t5(buckets: int, more: int, bidirectional: bool, beyond: int) -> None:
    far = buckets // 2 + more
    found = distance_buckets(RelativeBias("table", buckets, far, bidirectional))
    distances = torch.arange(-far - beyond, (far + beyond if bidirectional else 0) + 1)
    expected = t5.T5Attention._relative_position_bucket(distances, bidirectional, buckets, far)
    index = np.clip(distances.numpy() + far, 0, len(found) - 1)
    differ = np.flatnonzero(found[index] != expected.numpy())
    # The logarithms of two libraries differ in the last bit, which shows where a bucket ends on a distance.
    assert all(_is_edge(abs(int(distances[i])), buckets // (1 + bidirectional), far) for i in differ)


def _is_edge(distance: int, buckets: int, far: int) -> bool:
    exact = buckets // 2
    place = math.log(distance / exact) / math.log(far / exact) * (buckets - exact)
    return abs(place - round(place)) < 1e-5


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_of_the_published_models_are_exact(bidirectional: bool) -> None:
    found = distance_buckets(RelativeBias("table", 32, 128, bidirectional))
    distances = torch.arange(-128, (128 if bidirectional else 0) + 1)
    expected = t5.T5Attention._relative_position_bucket(distances, bidirectional, 32, 128)
    assert np.array_equal(found, expected.numpy())
