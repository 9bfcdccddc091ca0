"""A model of letters: a letter's score depends on the letter before, answers depend on the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from safety.evaluate.model import Completion, ModelError, Window


@dataclass
class LetterModel:
    """`fails_after` is how many windows and completions it is asked before it is interrupted. `taste` makes
    another model of it; `chats` and `answers` say what it does beside scoring.
    """

    name: str = "letters"
    taste: int = 7
    chats: bool = True
    answers: bool = True
    positions: int = 200
    fails_after: int | None = None
    asked: list[Window | Completion] = field(default_factory=list)

    @property
    def facts(self) -> Mapping[str, str]:
        return {"source": "letters", "taste": str(self.taste)}

    @property
    def prefix(self) -> int:
        return 1

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def chat(self, message: str) -> list[int]:
        if not self.chats:
            raise ModelError("letters do not chat")
        return [2, *self.encode(message), 3]

    def score(self, windows: Sequence[Window]) -> Iterator[list[float]]:
        for window in windows:
            self._ask(window)
            pairs = zip(window.tokens[window.start - 1 :], window.tokens[window.start :], strict=False)
            yield [-((self.taste * before + token) % 31) / 7 for before, token in pairs]

    def complete(self, prompts: Sequence[Completion]) -> Iterator[str]:
        if not self.answers:
            raise ModelError("letters do not answer")
        return map(self._completed, prompts)

    def _completed(self, prompt: Completion) -> str:
        self._ask(prompt)
        chance = random.Random(f"{self.taste} {prompt.seed} {prompt.tokens}")
        return "".join(chance.choice("ab <&>\x00é") for _ in range(prompt.max_tokens))

    def _ask(self, what: Window | Completion) -> None:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked.append(what)
