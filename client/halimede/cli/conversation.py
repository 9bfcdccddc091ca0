"""The turns of a chat."""

from __future__ import annotations

from halimede.sampling import Message

__all__ = ["Conversation"]


class Conversation:
    """Question and answer are kept together, so that a failed question leaves no trace."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._turns: list[Message] = []

    def asking(self, question: str) -> list[Message]:
        """What to send for the next answer."""
        system = [Message(role="system", content=self.system)] if self.system else []
        return [*system, *self._turns, Message(role="user", content=question)]

    def add(self, question: str, answer: str) -> None:
        self._turns.append(Message(role="user", content=question))
        self._turns.append(Message(role="assistant", content=answer))

    def reset(self) -> None:
        self._turns.clear()
