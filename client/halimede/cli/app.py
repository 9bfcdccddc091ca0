"""The commands and the options before them."""

from __future__ import annotations

from typing import Annotated

import typer

from halimede.api_key import DEFAULT_HEADER
from halimede.cli.answer import generate, summarize, translate
from halimede.cli.chat import chat
from halimede.cli.options import command
from halimede.cli.output import unshowable
from halimede.cli.repository import load, models, reload, unload
from halimede.cli.server import health, metrics
from halimede.cli.session import Session, Tools
from halimede.target import DEFAULT_URL
from halimede.timeouts import KEEPALIVE_S

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

halimede generate "Good morning" --url grpcs://llm.example.org --api-key-file halimede.key --tls-ca ca.crt

[bold]Exit codes[/]

0 done, 2 bad usage, refused input or key, 3 no server or none free, 4 deadline exceeded,
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


def _was_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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
    keepalive: Annotated[
        float,
        typer.Option(
            envvar="HALIMEDE_KEEPALIVE",
            help="Seconds of silence after which the server is probed, and for its answer; inf for never.",
        ),
    ] = KEEPALIVE_S,
    api_key_file: Annotated[
        str | None,
        typer.Option(envvar="HALIMEDE_API_KEY_FILE", help="File with the key that the server asks for."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="HALIMEDE_API_KEY",
            help="The key itself. Other users of this machine can see it in a command: prefer a file, or the "
            "variable.",
        ),
    ] = None,
    api_key_header: Annotated[
        str, typer.Option(envvar="HALIMEDE_API_KEY_HEADER", help="The header of the key.")
    ] = DEFAULT_HEADER,
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
    unshowable.begin()
    ctx.call_on_close(unshowable.tell)
    keys = {"api_key_file": api_key_file, "api_key": api_key}
    session = Session(
        url=url,
        model=model,
        timeout=timeout,
        json=json,
        metrics_url=metrics_url,
        keepalive=keepalive,
        **keys,
        api_key_header=api_key_header,
        tls_ca=tls_ca,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tools=ctx.obj or Tools(),
    )
    # A key of the command line goes before one of the environment, whichever of the two is in a file.
    ctx.obj = session.taking({name: key for name, key in keys.items() if _was_typed(ctx, name)})
