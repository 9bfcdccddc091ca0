"""Explicit masks: which keys a query may attend to. TensorRT has no other way to express it.

A mask is bool, (rows, 1, queries, keys), true where a query may look; no row of it is ever all false.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def fill_causal(mask: Mask, positions: NDArray[np.int64], window: int | None = None) -> None:
    """Keys up to the query's own position, with a window only the last `window` of them.

    `positions` are those of the queries, (rows, queries); `mask` is written in place.
    """
    keys = np.arange(mask.shape[-1])
    queries = positions[:, None, :, None]
    np.less_equal(keys, queries, out=mask)
    if window is not None:
        mask &= keys > queries - window


def fill_source(mask: Mask, lengths: NDArray[np.int32]) -> None:
    """The keys that each row's source has; of a row without one, the first."""
    np.less(np.arange(mask.shape[-1]), np.maximum(lengths, 1)[:, None, None, None], out=mask)
