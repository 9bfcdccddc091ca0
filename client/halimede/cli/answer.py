"""halimede generate: one answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from halimede.cli.input import read_stdin
from halimede.cli.output import print_json, show_figures, write
from halimede.cli.session import Session
from halimede.results import Chunk, Generation
from halimede.sampling import CallOptions, Message, Sampling
from halimede.traceparent import new_traceparent, trace_id_of

if TYPE_CHECKING:
    from halimede._sync.stream import Stream

__all__ = ["generate", "show_whole", "write_chunks"]


def generate(
    session: Session,
    sampling: Sampling,
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from stdin.")],
    chat: Annotated[
        bool, typer.Option("--chat", help="Send it as a user's message, not as bare text.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="A system message before it; implies --chat.")] = None,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Default: stream where the output is a terminal."),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Begin a trace, and print its id on stderr.")
    ] = False,
) -> None:
    """Answer one prompt. Ctrl-C ends it on the server too.

    [dim]halimede generate "Once upon a time" --max-tokens 40 --temperature 0.8 --seed 7[/]

    [dim]halimede generate --chat "What is the capital of France?" --json[/]
    """
    text = read_stdin() if prompt == "-" else prompt
    messages = _messages(text, system) if chat or system is not None else None
    bare = text if messages is None else None
    if stream is None:
        stream = sys.stdout.isatty() and not session.json
    options: CallOptions = {"sampling": sampling}
    if trace:
        options["traceparent"] = new_traceparent()
        print(f"trace {trace_id_of(options['traceparent'])}", file=sys.stderr)
    (_stream if stream else _whole)(session, bare, messages, options)


def _messages(text: str, system: str | None) -> list[Message]:
    question = Message(role="user", content=text)
    return [question] if system is None else [Message(role="system", content=system), question]


def _whole(
    session: Session, prompt: str | None, messages: list[Message] | None, options: CallOptions
) -> None:
    with session.client() as client:
        show_whole(session, client.generate(prompt, messages=messages, **options))


def _stream(
    session: Session, prompt: str | None, messages: list[Message] | None, options: CallOptions
) -> None:
    with session.client() as client:
        write_chunks(session, client.stream(prompt, messages=messages, **options))


def show_whole(session: Session, answer: Generation) -> None:
    if session.json:
        print_json(answer)
        return
    write(answer.text + "\n")


def write_chunks(session: Session, stream: Stream) -> None:
    """Each as it comes; at the end what it took."""
    show = print_json if session.json else _write_text
    with stream as chunks:
        try:
            for chunk in chunks:
                show(chunk)
        finally:
            if chunks.generation.text and not session.json:
                write("\n")
    if not session.json:
        show_figures(chunks.generation)


def _write_text(chunk: Chunk) -> None:
    write(chunk.text)
