"""What the tests of the sampler share: logits, choosers, and draws for known random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.core.request import Sampling
from engine.core.tokens import Vocabulary
from engine.sampling.sampler import Choice, Floats, TokenChooser, choose

VOCAB = 300  # more than the candidates that are looked at first
EOS = frozenset({7, 9})


def chooser(prompt: tuple[int, ...] = (), vocab: int = VOCAB, **sampling: Any) -> TokenChooser:
    """Of a request with room for many tokens, so that nothing is forced at the end."""
    asked = Sampling(**{"max_tokens": 9, **sampling})
    return TokenChooser(asked, prompt, len(prompt) + 10_000, Vocabulary(vocab, EOS))


def logits_of(seed: int, rows: int = 1, vocab: int = VOCAB, scale: float = 3) -> Floats:
    drawn = np.random.default_rng(seed).standard_normal((rows, vocab))
    return (scale * drawn).astype(np.float32)


class Fixed:
    """A random number generator whose next number is known."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def tokens_at(logits: Floats, uniforms: Iterable[float], **sampling: Any) -> list[int]:
    """The tokens that are drawn for these random numbers."""
    choosers = []
    for uniform in uniforms:
        choosers.append(chooser(vocab=len(logits), seed=1, **sampling))
        choosers[-1]._random = Fixed(uniform)  # type: ignore[assignment]
    rows = np.repeat(logits[None], len(choosers), axis=0)
    return [choice.token for choice in choose_all(rows, choosers)]


def choose_all(logits: Floats, choosers: Sequence[TokenChooser]) -> list[Choice]:
    """The choices of rows that are all finite."""
    choices = choose(logits, choosers)
    assert None not in choices
    return [choice for choice in choices if choice]


seeds = st.integers(0, 2**32)
