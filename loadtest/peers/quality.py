"""How well a model predicts the text: its perplexity, and what it lost against the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.errors import BenchError

MOST_LOSS = 0.01
# Two orders of summation differ by far less; another text or other weights by far more.
_SAME = 0.002


@dataclass(frozen=True, slots=True)
class Quality:
    """`loss` is perplexity over the reference's, less 1; `error` its standard error over the tokens, paired
    with the reference's; None where only the two perplexities are known.
    """

    perplexity: float
    loss: float
    error: float | None
    tokens: int

    @property
    def comparable(self) -> bool:
        return self.loss <= MOST_LOSS


def quality(losses: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> Quality:
    """Of the losses of each window's tokens; both of the same tokens."""
    found, expected = (np.concatenate([np.asarray(window) for window in one]) for one in (losses, reference))
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise BenchError(f"scored {len(found)} tokens, expected {len(expected)}, each a finite number")
    difference = found - expected
    error = float(difference.std() / math.sqrt(len(difference)))
    return Quality(math.exp(found.mean()), math.expm1(difference.mean()), error, len(found))


def against(losses: Sequence[Sequence[float]], manifest: Mapping[str, Any]) -> Quality:
    """As `quality`, where only the reference's perplexity is known; of the same text."""
    found = np.concatenate([np.asarray(window) for window in losses])
    perplexity = math.exp(found.mean())
    return Quality(perplexity, perplexity / manifest["reference_perplexity"] - 1, None, len(found))


def require_same_text(content: Mapping[str, Any], reference: Quality) -> None:
    """BenchError unless transformers, on the folder that the peers convert, agrees with the build."""
    expected = content["reference_perplexity"]
    if abs(reference.perplexity / expected - 1) > _SAME:
        raise BenchError(
            f"the reference scores {reference.perplexity:.3f}, its build says {expected:.3f}: another text,"
            " or other weights; remove .cache/peers/checkpoint, and build the engine again"
        )
