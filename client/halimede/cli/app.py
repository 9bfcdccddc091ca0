"""The commands and the options before them."""

from __future__ import annotations

from typing import Annotated

import typer

from halimede.cli.answer import generate
from halimede.cli.chat import chat
from halimede.cli.options import command
from halimede.cli.repository import load, models, reload, unload
from halimede.cli.server import health, metrics
from halimede.cli.session import Session, Tools
from halimede.cli.tasks import summarize, translate
from halimede.target import DEFAULT_URL

__all__ = ["app"]

EPILOG = """
[bold]Examples[/]

halimede chat --system "Answer in one sentence."

halimede generate "The capital of France is" --max-tokens 16

halimede --url http://localhost:8000 generate --chat - < question.txt

halimede summarize @report.txt --model bart-large-cnn --num-beams 4

halimede models

halimede load gpt2

halimede health --json

[bold]Exit codes[/]

0 done, 2 bad usage or refused input, 3 no server or none free, 4 deadline exceeded,
5 fault of the server, 130 interrupted
"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=EPILOG,
    pretty_exceptions_enable=False,
)

for function in (chat, generate, summarize, translate, models, load, unload, reload, health, metrics):
    app.command()(command(function))


def _show_version(asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - it is slow

    try:
        print(f"halimede {version('halimede')}")
    except PackageNotFoundError:  # run from a source tree
        print("halimede, not installed")
    raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    url: Annotated[
        str,
        typer.Option(envvar="HALIMEDE_URL", help="Server: HOST:PORT for gRPC, http://HOST:PORT for HTTP."),
    ] = DEFAULT_URL,
    model: Annotated[str, typer.Option(envvar="HALIMEDE_MODEL", help="Model to ask.")] = "smollm2",
    timeout: Annotated[
        float, typer.Option(help="Seconds for a whole request; the server ends it then.")
    ] = 120.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    metrics_url: Annotated[
        str | None,
        typer.Option(
            envvar="HALIMEDE_METRICS_URL",
            help="Where the metrics are.",
            show_default="the next port, as 8002 to 8001",
        ),
    ] = None,
    tls_ca: Annotated[
        str | None,
        typer.Option(envvar="HALIMEDE_TLS_CA", help="PEM to trust.", show_default="the system's"),
    ] = None,
    tls_certificate: Annotated[
        str | None,
        typer.Option(envvar="HALIMEDE_TLS_CERTIFICATE", help="PEM to show a server that asks (mutual TLS)."),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(envvar="HALIMEDE_TLS_KEY", help="Its key, without a password.")
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Ask a language model that Triton serves with Halimede's ensemble.

    The options here may also follow the command.
    """
    tools = ctx.obj or Tools()
    ctx.obj = Session(url, model, timeout, json, metrics_url, tls_ca, tls_certificate, tls_key, tools)
