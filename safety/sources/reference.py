"""The builder's numpy reference, fp32: what engines and servers are compared with.

It scores and does nothing else: it keeps no keys and values, so an answer would take minutes. Weights are
read once and kept, four bytes each.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

import numpy as np

from build.architecture import describe, view
from build.checkpoint import Checkpoint, Weight
from build.errors import BuildError
from build.quantise import Floats
from build.recipe import known_recipes, load_recipe
from build.reference.decoder import final_hidden, head_weight
from build.sources.resolve import open_source
from build.tokenizer_fit import fitted
from safety.evaluate.model import Completion, ModelError, Window
from safety.sources.tokens import Texts

# Windows of one length that go through the layers together; their logits are held one window at a time.
_TOGETHER: Final = 16


def open_reference(source: str) -> Reference:
    """Of a recipe's name, or of a source as the builder takes it. Raises ModelError as the builder says."""
    try:
        where = load_recipe(source).source if source in known_recipes() else source
        return Reference(source, view(open_source(where)))
    except BuildError as error:
        raise ModelError(f"reference:{source}: {error}") from error


class Reference:
    """A window's scores do not depend on the other windows: only those of one length share a product, and
    numpy multiplies each window on its own.
    """

    def __init__(self, source: str, checkpoint: Checkpoint) -> None:
        """Raises BuildError for a model that is no decoder."""
        self._architecture = describe(checkpoint.config)
        checkpoint.require_exactly(self._architecture.tensors())
        self._checkpoint = replace(
            checkpoint, weights={name: _kept(weight) for name, weight in checkpoint.weights.items()}
        )
        files = checkpoint.tokenizer
        tokenizer = fitted(files.json, self._architecture.vocab_size).decode()
        self._texts = Texts(tokenizer, files.special)
        self.name = f"reference:{source}"
        self.positions: int = self._architecture.max_positions
        origin = checkpoint.origin
        digest = hashlib.sha256(repr(sorted(origin.files.items())).encode()).hexdigest()
        self.facts: Mapping[str, str] = {
            "source": f"numpy reference of {origin.id}",
            "weights": digest,
            "precision": "fp32",
            "numpy": np.__version__,
        }

    @property
    def prefix(self) -> int:
        return self._texts.prefix

    def encode(self, text: str) -> list[int]:
        return self._texts.encode(text)

    def chat(self, message: str) -> list[int]:  # noqa: ARG002
        raise ModelError(f"{self.name}: scores only, a chat needs an engine or a server")

    def score(self, windows: Sequence[Window]) -> Iterator[list[float]]:
        found: dict[int, list[float]] = {}
        order = sorted(range(len(windows)), key=lambda place: len(windows[place].tokens))
        for _, places in groupby(order, key=lambda place: len(windows[place].tokens)):
            alike = list(places)
            for at in range(0, len(alike), _TOGETHER):
                part = alike[at : at + _TOGETHER]
                scores = self._scored([windows[place] for place in part])
                found.update(zip(part, scores, strict=True))
        for place in range(len(windows)):
            yield found[place]

    def complete(self, prompts: Sequence[Completion]) -> Iterator[str]:  # noqa: ARG002
        raise ModelError(f"{self.name}: scores only, answers need an engine or a server")

    def _scored(self, windows: Sequence[Window]) -> list[list[float]]:
        ids = np.array([window.tokens[:-1] for window in windows], np.int64)
        if not ids.shape[1]:
            return [[] for _ in windows]
        hidden = final_hidden(self._checkpoint, self._architecture, ids, lambda: None)
        head = head_weight(self._checkpoint, self._architecture)
        return [
            _logprobs(states[window.start - 1 :] @ head.T, window.tokens[window.start :])
            for states, window in zip(hidden, windows, strict=True)
        ]


def _logprobs(logits: Floats, tokens: Sequence[int]) -> list[float]:
    scores = logits.astype(np.float64)
    top = scores.max(axis=-1, keepdims=True)
    sums = np.log(np.exp(scores - top).sum(axis=-1)) + top[:, 0]
    found: list[float] = (scores[np.arange(len(tokens)), list(tokens)] - sums).tolist()
    return found


def _kept(weight: Weight) -> Weight:
    return replace(weight, read=functools.cache(weight.read))
