"""Runs engine steps. `Runner` is the interface that every device implements; the loop knows nothing else.

A runner owns the weights and the KV cache of `slots` rows. It runs what the scheduler decided: it keeps no
account of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Runner(Protocol):
    """All logits are float32; a returned array is valid, and may be written to, until the next call."""

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        """Put `tokens[i]` at `positions[i]` of row i; returns logits (rows, vocab)."""

    def prefill(self, slot: int, start: int, tokens: Sequence[int]) -> Floats:
        """Put the tokens at `start`… of the row; returns the logits after the last one (1, vocab)."""

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` positions of a row to another."""

    def swap(self, a: int, b: int, tokens: int) -> None:
        """Exchange the first `tokens` positions of two rows."""
