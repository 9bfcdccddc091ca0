"""halimede generate, summarize and translate: one text in, one answer out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halimede.cli.input import read_file, read_stdin
from halimede.cli.output import print_json, show_figures, write
from halimede.cli.session import Session
from halimede.results import Generation
from halimede.sampling import CallOptions, Message, Sampling
from halimede.traceparent import new_traceparent, trace_id_of

if TYPE_CHECKING:
    from halimede._sync.stream import Stream

__all__ = ["generate", "summarize", "translate"]

_Text = Annotated[str, typer.Argument(help="Text; - reads it from stdin, @FILE from a file.")]
_Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Print the answer while it is generated. Default: on a terminal, without --json or beams.",
    ),
]


def generate(
    session: Session,
    sampling: Sampling,
    prompt: Annotated[str, typer.Argument(help="Prompt; - reads it from stdin.")],
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a user's message through the chat template.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="System message; implies --chat.")] = None,
    stream: _Stream = None,
    trace: Annotated[bool, typer.Option("--trace", help="Start a trace and print its id on stderr.")] = False,
) -> None:
    """Answer one prompt. Ctrl-C cancels it on the server too.

    [dim]halimede generate "Once upon a time" --max-tokens 40 --temperature 0.8 --seed 7[/]

    [dim]halimede generate --chat "What is the capital of France?" --json[/]
    """
    text = read_stdin() if prompt == "-" else prompt
    messages: list[Message] | None = None
    if chat or system is not None:
        messages = [] if system is None else [Message(role="system", content=system)]
        messages.append(Message(role="user", content=text))
    bare = text if messages is None else None
    options: CallOptions = {"sampling": sampling}
    if trace:
        options["traceparent"] = new_traceparent()
        print(f"trace {trace_id_of(options['traceparent'])}", file=sys.stderr)
    with session.client() as client:
        if _streams(session, sampling, stream):
            _write_chunks(session, client.stream(bare, messages=messages, **options))
        else:
            _write_whole(session, client.generate(bare, messages=messages, **options))


def summarize(session: Session, sampling: Sampling, text: _Text, stream: _Stream = None) -> None:
    """Summarize a text with a model that is built for it.

    [dim]halimede summarize @report.txt --model bart-large-cnn --num-beams 4[/]

    [dim]curl -s example.org/story.txt | halimede summarize - --model bart-large-cnn[/]
    """
    source = _read(text)
    with session.client() as client:
        if _streams(session, sampling, stream):
            _write_chunks(session, client.summarize_stream(source, sampling=sampling))
        else:
            _write_whole(session, client.summarize(source, sampling=sampling))


def translate(session: Session, sampling: Sampling, text: _Text, stream: _Stream = None) -> None:
    """Translate a text with a model that is built for it.

    [dim]halimede translate "Good morning!" --model opus-mt-en-de[/]
    """
    source = _read(text)
    with session.client() as client:
        if _streams(session, sampling, stream):
            _write_chunks(session, client.translate_stream(source, sampling=sampling))
        else:
            _write_whole(session, client.translate(source, sampling=sampling))


def _read(text: str) -> str:
    if text == "-":
        return read_stdin()
    if not text.startswith("@"):
        return text
    try:
        return read_file(Path(text[1:]))
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]}: {error.strerror}", param_hint="TEXT") from error


def _streams(session: Session, sampling: Sampling, asked: bool | None) -> bool:
    """A beam search cannot be streamed, so it is only on request, and the server refuses it."""
    if asked is not None:
        return asked
    return sys.stdout.isatty() and not session.json and (sampling.num_beams or 1) == 1


def _write_whole(session: Session, answer: Generation) -> None:
    if session.json:
        print_json(answer)
    else:
        write(answer.text + "\n")


def _write_chunks(session: Session, stream: Stream) -> None:
    """Writes each chunk when it arrives, and the figures of the answer at the end."""
    with stream as chunks:
        try:
            for chunk in chunks:
                if session.json:
                    print_json(chunk)
                else:
                    write(chunk.text)
        finally:
            if chunks.generation.text and not session.json:
                write("\n")
    if not session.json:
        show_figures(chunks.generation)
