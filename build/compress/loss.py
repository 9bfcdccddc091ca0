"""How well a stream predicts the next tokens."""

from __future__ import annotations

import numpy as np

from build.quantise import Floats, Ids

_PIECE = 128  # positions whose logits are held at a time


def mean_loss(hidden: Floats, head: Floats, ids: Ids) -> float:
    """Mean negative log-likelihood, in nats, of each id [windows, positions] but the first of its window.

    `hidden` [windows, positions, hidden] is what the head [vocab, hidden] is applied to.
    """
    rows, following = hidden[:, :-1].reshape(-1, hidden.shape[-1]), ids[:, 1:].reshape(-1)
    total = 0.0
    for start in range(0, len(rows), _PIECE):
        logits = rows[start : start + _PIECE] @ head.T
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = logits[np.arange(len(logits)), following[start : start + _PIECE]]
        sums = np.exp(logits).sum(axis=-1, dtype=np.float64)
        total += float((np.log(sums) - chosen).sum())
    return total / len(rows)
