"""What changed sides: the project's own pairs and facts (safety/evaluate/own), asked of two models.

Perplexity moves little while items flip; both are budgets of a recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from build.architecture import describe
from build.checkpoint import Checkpoint
from build.compress.measure import Reader, Reading, log_softmax
from safety.evaluate import own
from safety.evaluate.items import Answers, Choice
from safety.evaluate.likelihood import scores, windows
from safety.evaluate.model import Completion, ModelError, Window
from safety.evaluate.table import difference

Json = dict[str, Any]
_FIRST = ("bos_token", "eos_token")


@dataclass(frozen=True)
class Scoring:
    """A reader as a model that scores; `special` are its tokenizer's special tokens by name."""

    reader: Reader
    special: Mapping[str, str]
    positions: int
    name: str = "checkpoint"
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, reader: Reader, checkpoint: Checkpoint) -> Scoring:
        """Of a decoder's checkpoint, or of the engine that was built of it."""
        return cls(reader, checkpoint.tokenizer.special, describe(checkpoint.config).max_positions)

    @property
    def prefix(self) -> int:
        """As lm-eval's: the beginning token, or else the ending one."""
        for name in _FIRST:
            number = self.reader.vocabulary.tokenizer.token_to_id(self.special.get(name) or "")
            if number is not None:
                return int(number)
        raise ModelError(f"{self.name}: its tokenizer names neither {' nor '.join(_FIRST)}")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.reader.vocabulary.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def chat(self, message: str) -> list[int]:
        raise ModelError(f"{self.name}: scores only, {message!r} needs an engine")

    def score(self, windows: Sequence[Window]) -> Iterator[list[float]]:
        """Those of one length together: a reader fills shorter passages, and would compute what is filled."""
        found: dict[int, list[float]] = {}
        order = sorted(range(len(windows)), key=lambda place: len(windows[place].tokens))
        for _, places in groupby(order, key=lambda place: len(windows[place].tokens)):
            alike = list(places)
            readings = self.reader.read([windows[place].tokens for place in alike])
            for place, reading in zip(alike, readings, strict=True):
                found[place] = _logprobs(reading, windows[place])
        yield from (found[place] for place in range(len(windows)))

    def complete(self, prompts: Sequence[Completion]) -> Iterator[str]:
        raise ModelError(f"{self.name}: scores only, {len(prompts)} prompts need an engine")


def _logprobs(reading: Reading, window: Window) -> list[float]:
    logs = log_softmax(reading.logits(np.arange(window.start - 1, len(window.tokens) - 1)))
    return [float(row[token]) for row, token in zip(logs, window.tokens[window.start :], strict=True)]


def items() -> list[Choice]:
    """The pairs and the facts."""
    return [item for item in own.items() if isinstance(item, Choice)]


def answers(model: Scoring, asked: Sequence[Choice]) -> Answers:
    """The log-probabilities of every option."""
    of_item = [windows(model, item) for item in asked]
    found = model.score([window for each in of_item for window in each])
    return {
        item.id: scores(each, [next(found) for _ in each]) for item, each in zip(asked, of_item, strict=True)
    }


def flips(asked: Sequence[Choice], first: Answers, second: Answers) -> Json:
    """The share of items that prefer another option, of all and by set, with McNemar's probability."""
    whole = [drift for drift in difference(asked, first, second) if drift.category == ""]
    count = sum(drift.n for drift in whole)
    of_set = {
        drift.set: {"flips": round(drift.flips, 4), "p": drift.p, "kl": round(drift.kl, 5), "n": drift.n}
        for drift in whole
    }
    return {"flips": round(sum(drift.flips * drift.n for drift in whole) / count, 4), "sets": of_set}
