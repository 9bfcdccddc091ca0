"""Tables of positions that no checkpoint holds: sinusoids, and the buckets of relative distances."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from build.architecture.seq2seq import RelativeBias


def sinusoids(rows: int, size: int) -> NDArray[np.float32]:
    """[rows, size]: sines in the first half, cosines in the second (Marian's order)."""
    half = (size + 1) // 2
    frequencies = 10000.0 ** (-2.0 * np.arange(half) / size)
    angles = np.outer(np.arange(rows, dtype=np.float64), frequencies)
    table: NDArray[np.float32] = np.empty((rows, size), np.float32)
    table[:, :half] = np.sin(angles)
    table[:, half:] = np.cos(angles[:, : size - half])
    return table


def distance_buckets(relative: RelativeBias) -> NDArray[np.int64]:
    """The bucket of each key position minus query position; those further off have that of the last.

    From -max_distance to max_distance where the bias is bidirectional, else from -max_distance to 0: index
    `max_distance` is the query's own position.
    """
    far = relative.max_distance
    distances = np.arange(-far, far + 1 if relative.bidirectional else 1)
    if not relative.bidirectional:
        return _magnitude_buckets(-distances, relative.buckets, far)
    half = relative.buckets // 2
    return _magnitude_buckets(np.abs(distances), half, far) + half * (distances > 0)


def _magnitude_buckets(distances: NDArray[np.int64], buckets: int, far: int) -> NDArray[np.int64]:
    """Half of the buckets hold one distance each, the others grow with the logarithm up to `far`.

    In integers, as no two libraries round a logarithm alike: of `more` buckets the one at n begins where
    (distance / single) ** more is (far / single) ** n.
    """
    single = buckets // 2
    more = buckets - single
    starts = [far**n * single ** (more - n) for n in range(1, more)]
    large = [single + bisect_right(starts, int(distance) ** more) for distance in distances]
    return np.where(distances < single, distances, large)
