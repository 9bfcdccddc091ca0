"""The command `halimede`: its commands, and the options before them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from halimede.api_key import DEFAULT_HEADER
from halimede.cli.answer import generate, summarize, translate
from halimede.cli.chat import chat
from halimede.cli.options import CONNECTION, command
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

0 success; 2 wrong usage, refused input or refused API key; 3 no server, or the server is busy;
4 timeout; 5 server error; 130 interrupted
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
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - the import is slow

    try:
        print(f"halimede {version('halimede')}")
    except PackageNotFoundError:  # run from a source tree
        print("halimede (not installed)")
    raise typer.Exit


def _option(name: str, **settings: Any) -> Any:
    """An option of the connection that an environment variable may set too."""
    return typer.Option(envvar=f"HALIMEDE_{name.upper()}", help=CONNECTION[name][1], **settings)


def _was_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.callback()
def main(
    ctx: typer.Context,
    url: Annotated[str, _option("url")] = DEFAULT_URL,
    model: Annotated[str, _option("model")] = "smollm2",
    timeout: Annotated[float, typer.Option(help=CONNECTION["timeout"][1])] = 120.0,
    json: Annotated[bool, typer.Option("--json", help=CONNECTION["json"][1])] = False,
    metrics_url: Annotated[
        str | None, _option("metrics_url", show_default="the port after the gRPC port")
    ] = None,
    keepalive: Annotated[float, _option("keepalive")] = KEEPALIVE_S,
    api_key_file: Annotated[str | None, _option("api_key_file")] = None,
    api_key: Annotated[str | None, _option("api_key")] = None,
    api_key_header: Annotated[str, _option("api_key_header")] = DEFAULT_HEADER,
    tls_ca: Annotated[str | None, _option("tls_ca", show_default="the system's")] = None,
    tls_certificate: Annotated[str | None, _option("tls_certificate")] = None,
    tls_key: Annotated[str | None, _option("tls_key")] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Send requests to a language model that Triton serves with Halimede's ensemble.

    These options may also follow the command.
    """
    unshowable.begin()
    ctx.call_on_close(unshowable.warn_once)
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
    # A key from the command line overrides one from the environment, be either in a file or not.
    ctx.obj = session.with_options({name: key for name, key in keys.items() if _was_typed(ctx, name)})
