"""How well a model predicts a text: its perplexity, and what it lost compared with the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.errors import BenchError

MOST_LOSS = 0.01
# Two orders of summation differ by far less; another text or other weights by far more.
_SAME = 0.002

# Of each window the losses of its tokens after the first, in nats.
Losses = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Quality:
    """`loss` is perplexity over the reference's, less 1; `error` its standard error over the tokens, paired
    with the reference's; None if only the two perplexities are known.
    """

    perplexity: float
    loss: float
    error: float | None
    tokens: int

    @property
    def comparable(self) -> bool:
        return self.loss <= MOST_LOSS


def token_losses(logits: NDArray[Any], ids: Sequence[int]) -> list[float]:
    """Negative log-likelihood of ids[1:], in nats, by logits [tokens, vocab] after each id."""
    rows = np.asarray(logits[: len(ids) - 1], np.float64)
    top = rows.max(axis=-1, keepdims=True)
    sums = np.log(np.exp(rows - top).sum(axis=-1)) + top[:, 0]
    losses: list[float] = (sums - rows[np.arange(len(rows)), np.asarray(ids[1:])]).tolist()
    return losses


def quality(losses: Losses, reference: Losses) -> Quality:
    """BenchError unless both are of as many tokens."""
    found, expected = (np.concatenate([np.asarray(window) for window in one]) for one in (losses, reference))
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise BenchError(f"scored {len(found)} tokens, expected {len(expected)}, each a finite number")
    difference = found - expected
    error = float(difference.std() / math.sqrt(len(difference)))
    return Quality(math.exp(found.mean()), math.expm1(difference.mean()), error, len(found))


def against(losses: Losses, manifest: Mapping[str, Any]) -> Quality:
    """As `quality`, if only the reference's perplexity on the same text is known."""
    found = np.concatenate([np.asarray(window) for window in losses])
    perplexity = math.exp(found.mean())
    return Quality(perplexity, perplexity / manifest["reference_perplexity"] - 1, None, len(found))


def require_same_text(manifest: Mapping[str, Any], reference: Quality) -> None:
    """BenchError unless transformers, on the folder that the peers convert, agrees with the build."""
    expected = manifest["reference_perplexity"]
    if abs(reference.perplexity / expected - 1) > _SAME:
        raise BenchError(
            f"the reference scores {reference.perplexity:.3f}, its build says {expected:.3f}: another text,"
            " or other weights; remove .cache/bench/smollm2-checkpoint-*, and build the engine again"
        )
