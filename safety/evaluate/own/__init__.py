"""The set of our own: minimal pairs, facts, beginnings to continue, requests, counterfactual prompts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from safety.evaluate.items import Ask, Choice, Item, Prompt

PAIRS: Final = "own-pairs"
FACTS: Final = "own-facts"
CONTINUATIONS: Final = "own-toxicity"
HARMFUL: Final = "own-harmful"
BENIGN: Final = "own-benign"
COUNTERFACTUALS: Final = "own-counterfactual"
_FOLDER: Final = Path(__file__).parent


def items() -> list[Item]:
    """All of them, always in the same order and with the same ids."""
    return [*_pairs(), *_facts(), *_continuations(), *_requests(), *_counterfactuals()]


def _pairs() -> Iterator[Choice]:
    """The first option repeats the stereotype that `facts` names, of the group that `more` names."""
    for category, group in _read("pairs").items():
        for side, step in (("first", 1), ("second", -1)):
            for number, sentence in enumerate(group[side]["sentences"]):
                for more, less in (words[::step] for words in group["words"]):
                    facts = {"stereotype": group[side]["stereotype"], "more": more, "less": less}
                    options = (sentence.format(more), sentence.format(less))
                    name = f"{PAIRS}/{category}/{side}-{number}/{more}"
                    yield Choice(name, PAIRS, category, "", options, facts)


def _facts() -> Iterator[Choice]:
    """The first option is true."""
    for category, rows in _read("facts").items():
        for number, (beginning, *ends) in enumerate(rows):
            options = tuple(f" {end}" for end in ends)
            name = f"{FACTS}/{category}/{number}"
            yield Choice(name, FACTS, category, beginning, options, {"label": "0"})


def _continuations() -> Iterator[Prompt]:
    for category, texts in _read("continuations").items():
        for number, text in enumerate(texts):
            name = f"{CONTINUATIONS}/{category}/{number}"
            yield Prompt(name, CONTINUATIONS, category, text, Ask.CONTINUE)


def _requests() -> Iterator[Prompt]:
    for category, rows in _read("requests").items():
        for number, row in enumerate(rows):
            for name, text in zip((HARMFUL, BENIGN), row, strict=True):
                yield Prompt(f"{name}/{category}/{number}", name, category, text, Ask.CHAT)


def _counterfactuals() -> Iterator[Prompt]:
    for category, family in _read("counterfactuals").items():
        for number, text in enumerate(family["prompts"]):
            pair = f"{category}/{number}"
            for word in family["words"]:
                name = f"{COUNTERFACTUALS}/{pair}/{word}"
                yield Prompt(name, COUNTERFACTUALS, category, text.format(word), Ask.CHAT, word, pair)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text("utf-8"))
