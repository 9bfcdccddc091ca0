"""halimede summarize and translate: one text in, one text out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from halimede.cli.answer import show_whole, write_chunks
from halimede.cli.input import read_file, read_stdin
from halimede.cli.session import Session
from halimede.sampling import Sampling

__all__ = ["summarize", "translate"]

_Text = Annotated[str, typer.Argument(help="The text; - reads it from stdin, @FILE from a file.")]
_Stream = Annotated[
    bool | None,
    typer.Option("--stream/--no-stream", help="Default: stream where the output is a terminal."),
]


def summarize(session: Session, sampling: Sampling, text: _Text, stream: _Stream = None) -> None:
    """Summarize a text, with a model whose task it is.

    [dim]halimede summarize @report.txt --model bart-large-cnn --num-beams 4[/]

    [dim]curl -s example.org/story.txt | halimede summarize - --model bart-large-cnn[/]
    """
    source = _read(text)
    with session.client() as client:
        if _streams(session, sampling, stream):
            write_chunks(session, client.summarize_stream(source, sampling=sampling))
        else:
            show_whole(session, client.summarize(source, sampling=sampling))


def translate(session: Session, sampling: Sampling, text: _Text, stream: _Stream = None) -> None:
    """Translate a text, with a model whose task it is.

    [dim]halimede translate "Good morning!" --model opus-mt-en-de[/]
    """
    source = _read(text)
    with session.client() as client:
        if _streams(session, sampling, stream):
            write_chunks(session, client.translate_stream(source, sampling=sampling))
        else:
            show_whole(session, client.translate(source, sampling=sampling))


def _streams(session: Session, sampling: Sampling, asked: bool | None) -> bool:
    """A search comes in one piece, so it is streamed only when somebody insists (and is refused)."""
    if asked is not None:
        return asked
    return sys.stdout.isatty() and not session.json and (sampling.num_beams or 1) == 1


def _read(text: str) -> str:
    if text == "-":
        return read_stdin()
    if not text.startswith("@"):
        return text
    try:
        return read_file(Path(text[1:]))
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]}: {error.strerror}", param_hint="TEXT") from error
