"""What a model prefers, by the log-probabilities of the tokens of each option."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from safety.evaluate.items import Choice, Scores
from safety.evaluate.model import Model, ModelError, Window


def windows(model: Model, choice: Choice) -> list[Window]:
    """One for each option, as lm-eval encodes a context and its continuation.

    Both are encoded together and cut at the length of the context's own tokens; spaces that end the context
    belong to the option. Where the context has no tokens, the prefix stands for it. What is more than
    `model.positions` is cut from the left.

    ModelError for an option that has no token of its own, or too many.
    """
    kept = choice.context.rstrip()
    spaces, before = choice.context[len(kept) :], model.encode(kept) if kept else []
    return [_window(model, choice, before, kept, spaces + option) for option in choice.options]


def _window(model: Model, choice: Choice, before: Sequence[int], context: str, option: str) -> Window:
    tokens = model.encode(context + option)
    own = len(tokens) - len(before)
    if not before and tokens[:1] != [model.prefix]:
        tokens = [model.prefix, *tokens]
    elif not before:
        own -= 1
    if not 0 < own < model.positions:
        raise ModelError(
            f"{choice.set}, item {choice.id}: an option of {max(own, 0)} tokens, must be from 1 to"
            f" {model.positions - 1}, one less than the model's positions"
        )
    tokens = tokens[-model.positions :]
    return Window(tuple(tokens), len(tokens) - own)


def scores(windows: Sequence[Window], logprobs: Sequence[Sequence[float]]) -> Scores:
    """The answer to a choice, by its windows and what `Model.score` gave for them."""
    tokens = tuple(window.tokens[window.start :] for window in windows)
    return Scores(tokens, tuple(tuple(found) for found in logprobs))


def total(scores: Scores) -> list[float]:
    """Of each option log p(option | context), as lm-eval compares them."""
    return [math.fsum(found) for found in scores.logprobs]


def mean(scores: Scores) -> list[float]:
    """Of each option log p per token, as BigScience compares perplexities: a longer one is no less likely."""
    return [math.fsum(found) / len(found) for found in scores.logprobs]


def shared(scores: Scores) -> list[float]:
    """Of each of two options log p of the tokens that both have, in their order.

    Nangia et al. (2020) mask these tokens one by one; a causal model reads each after all before it. So the
    words that name the group are conditions, and how frequent they are does not count.
    """
    first, second = scores.tokens
    blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    spans = [(range(b.a, b.a + b.size), range(b.b, b.b + b.size)) for b in blocks]
    return [
        math.fsum(found[place] for both in spans for place in both[index])
        for index, found in enumerate(scores.logprobs)
    ]


SUM: Final = "sum (lm-eval)"
MEAN: Final = "mean (BigScience)"
SHARED: Final = "shared tokens (Nangia et al.)"
PROTOCOLS: Final[Mapping[str, Callable[[Scores], list[float]]]] = {SUM: total, MEAN: mean, SHARED: shared}


@dataclass(frozen=True, slots=True)
class Preference:
    """The option with the highest value, of several the first, and by how much it exceeds the next."""

    index: int
    margin: float


def preference(values: Sequence[float]) -> Preference:
    """Of two values at least."""
    best, second = sorted(values, reverse=True)[:2]
    return Preference(values.index(best), best - second)


def softmax(values: Sequence[float]) -> list[float]:
    """Log-likelihoods as preferences: what is left of the probabilities if nothing else could be said."""
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    whole = math.fsum(weights)
    return [weight / whole for weight in weights]
