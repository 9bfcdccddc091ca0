"""halimede chat: a conversation."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from halimede.cli.output import show_error, show_figures, write
from halimede.cli.session import Session
from halimede.errors import HalimedeError, Unavailable
from halimede.sampling import Message, Sampling

if TYPE_CHECKING:
    from halimede._sync.client import Client

__all__ = ["chat"]

HELP = """\
/system TEXT  set the system message; without TEXT, show it
/reset        start a new conversation with the same system message
/exit         leave, like Ctrl-D
Ctrl-C cancels an answer, on the server too."""


def chat(
    session: Session,
    sampling: Sampling,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
) -> None:
    """Chat with a model. Ctrl-C cancels an answer, Ctrl-D leaves, /help lists the commands.

    [dim]halimede chat --system "You are terse." --temperature 0.7[/]
    """
    with session.client() as client:
        if not client.health().ok:
            raise Unavailable.of("model", session.model, "is not ready")
        Chat(session, client, sampling, Conversation(system)).run()


class Chat:
    """Answers line after line. If stdin is not a terminal, the first error ends the chat."""

    def __init__(
        self, session: Session, client: Client, sampling: Sampling, conversation: Conversation
    ) -> None:
        self._session = session
        self._client = client
        self._sampling = sampling
        self._conversation = conversation
        self._interactive = session.tools.is_interactive()
        self._console = Console(stderr=True, highlight=False)

    def run(self) -> None:
        if self._interactive:
            with suppress(ImportError):
                importlib.import_module("readline")  # gives input() line editing and a history
            self._say(f"{self._session.model} at {self._session.url}; /help lists the commands")
        while (line := self._read()) is not None:
            word, _, rest = line.partition(" ")
            if word == "/exit":
                return
            if word.startswith("/"):
                self._obey(word, rest.strip())
            elif line:
                self._answer(line)

    def _read(self) -> str | None:
        """The next line, or None at the end."""
        try:
            return self._session.tools.read_line("> " if self._interactive else "").strip()
        except HalimedeError as error:
            if not self._interactive:
                raise
            show_error(error)
            return ""
        except EOFError:
            if self._interactive:
                write("\n")
            return None
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._say("\nCtrl-D or /exit leaves")
            return ""

    def _obey(self, word: str, rest: str) -> None:
        match word:
            case "/reset":
                self._conversation.reset()
                self._say("new conversation")
            case "/system":
                if rest:
                    self._conversation.system = rest
                self._say(f"system: {self._conversation.system or 'none'}")
            case "/help":
                self._say(HELP)
            case _:
                self._say(f"unknown command {word}; /help lists the commands")

    def _answer(self, question: str) -> None:
        messages = self._conversation.asking(question)
        stream = self._client.chat_stream(messages, sampling=self._sampling)
        try:
            with stream:
                for chunk in stream:
                    write(chunk.text)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
        except HalimedeError as error:
            if not self._interactive:
                raise
            if stream.generation.text:
                write("\n")
            show_error(error)
            return
        write("\n")
        if self._interactive:
            show_figures(stream.generation)
        # Of a cancelled answer, the conversation keeps the part that the user has read.
        self._conversation.add(question, stream.generation.text)

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)


class Conversation:
    """The turns of a chat. A question is added with its answer, so that a failed one leaves no trace."""

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._turns: list[Message] = []

    def asking(self, question: str) -> list[Message]:
        """The messages to send with the next question."""
        system = [Message(role="system", content=self.system)] if self.system else []
        return [*system, *self._turns, Message(role="user", content=question)]

    def add(self, question: str, answer: str) -> None:
        self._turns.append(Message(role="user", content=question))
        self._turns.append(Message(role="assistant", content=answer))

    def reset(self) -> None:
        self._turns.clear()
