"""Losses from logits. Apart from the rest: peers' environments have numpy, and little else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def token_losses(logits: NDArray[Any], ids: Sequence[int]) -> list[float]:
    """Negative log-likelihood of ids[1:], in nats, by logits [tokens, vocab] after each id."""
    rows = np.asarray(logits[: len(ids) - 1], np.float64)
    top = rows.max(axis=-1, keepdims=True)
    sums = np.log(np.exp(rows - top).sum(axis=-1)) + top[:, 0]
    losses: list[float] = (sums - rows[np.arange(len(rows)), np.asarray(ids[1:])]).tolist()
    return losses
