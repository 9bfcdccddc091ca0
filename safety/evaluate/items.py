"""What a model is asked, and what it answered: the form that every set is read into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Choice:
    """Texts of which a model prefers one: sentences of a pair, answers to a question, ends of a sentence.

    Each option follows `context`, which may be empty. `facts` are what the set says of the item: the
    label, the direction of a stereotype.
    """

    id: str
    set: str
    category: str
    context: str
    options: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


class Ask(StrEnum):
    """How a prompt is put: sampled continuations of the bare text, or one greedy answer in a chat."""

    CONTINUE = "continue"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to continue or to answer. Prompts with the same `pair` differ in the word of a group alone."""

    id: str
    set: str
    category: str
    text: str
    ask: Ask
    group: str = ""
    pair: str = ""


Item = Choice | Prompt


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each option of a choice: its tokens, and the log-probability of each in nats."""

    tokens: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Texts:
    """What followed a prompt: one answer in a chat, or all sampled continuations."""

    texts: tuple[str, ...]


Answer = Scores | Texts
# By the id of the item.
Answers = Mapping[str, Answer]
