"""The options of the connection and of sampling, declared once and added to the commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer

from halimede.cli.exits import exit_code
from halimede.cli.output import show_error
from halimede.errors import HalimedeError
from halimede.inputs import INPUTS, Input, Sampling

__all__ = ["CONNECTION", "SAMPLING", "command"]

Options = Mapping[str, tuple[type, str]]

CONNECTION: Options = {
    "url": (
        str,
        "Address of the server: HOST:PORT for gRPC, http://HOST:PORT for HTTP; grpcs:// or https:// for TLS.",
    ),
    "model": (str, "Name of the model."),
    "timeout": (float, "Seconds for a whole request, including retries; inf for no limit."),
    "json": (bool, "Print JSON instead of text."),
    "metrics_url": (str, "URL of the server's metrics."),
    "keepalive": (
        float,
        "Seconds of silence before the server is probed, and until it must answer; inf for never.",
    ),
    "api_key_file": (str, "File that contains the API key."),
    "api_key": (
        str,
        "API key. Other users of this machine can see it in a command: prefer a file or the variable.",
    ),
    "api_key_header": (str, "Header that carries the API key."),
    "tls_ca": (str, "PEM file with the CA certificates to trust."),
    "tls_certificate": (str, "PEM file with the client certificate (mutual TLS)."),
    "tls_key": (str, "PEM file with the private key of the client certificate, without a password."),
}

_KINDS = {"BYTES": str, "BOOL": bool, "INT32": int, "UINT64": int, "FP32": float}


def _option(one: Input) -> tuple[type, str]:
    """A list of texts is an option that may be repeated, and so are the pairs of a JSON object."""
    if one.json:
        return list[str], f"{one.help} TOKEN=BIAS; repeatable."
    return (list[str], f"{one.help} Repeatable.") if one.many else (_KINDS[one.datatype], one.help)


SAMPLING: Options = {
    one.argument: _option(one)
    for name, one in INPUTS.items()
    if one.argument and not name.startswith("return_")
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `session` of a command by the connection options, and `sampling` by the
    sampling options.

    An option after the command overrides the same option before it. A HalimedeError ends the command
    with a message and an exit code.
    """
    own = inspect.signature(function, eval_str=True).parameters
    takes_sampling = "sampling" in own

    @wraps(function)
    def run(ctx: typer.Context, **arguments: Any) -> None:
        session = ctx.obj.with_options(_take(arguments, CONNECTION))
        try:
            if takes_sampling:
                arguments["sampling"] = _sampling(_take(arguments, SAMPLING))
            function(session=session, **arguments)
        except HalimedeError as error:
            show_error(error, json=session.json)
            raise typer.Exit(exit_code(error)) from error

    _set_signature(run, own.values(), {**CONNECTION, **(SAMPLING if takes_sampling else {})})
    return run


def _take(arguments: dict[str, Any], options: Options) -> dict[str, Any]:
    """Removes the options from the arguments and returns those that are set; 0 counts as set."""
    taken = {name: arguments.pop(name) for name in options}
    return {n: v for n, v in taken.items() if not (v is None or v is False or v == [])}


def _sampling(chosen: dict[str, Any]) -> Sampling:
    if "logit_bias" in chosen:
        chosen["logit_bias"] = dict(_bias(text) for text in chosen["logit_bias"])
    return Sampling(**chosen)


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: must be TOKEN=BIAS", param_hint="--logit-bias") from error


def _set_signature(run: Callable[..., None], own: Iterable[inspect.Parameter], options: Options) -> None:
    """Sets the signature and the annotations, from which typer reads the options of a command."""
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    kept = [p for p in own if p.name not in ("session", "sampling")]
    added = [_parameter(name, kind, text) for name, (kind, text) in options.items()]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*kept, *added)]
    run.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (context, *parameters)}


def _parameter(name: str, kind: type, text: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", help=text, show_default=False)
    option.rich_help_panel = "Connection" if name in CONNECTION else "Sampling"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
