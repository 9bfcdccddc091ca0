"""Options that many commands take, declared once and put into their signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer

from halimede.cli.exits import exit_code
from halimede.cli.output import show_error
from halimede.errors import HalimedeError
from halimede.sampling import Sampling

__all__ = ["CONNECTION", "SAMPLING", "command"]

Options = Mapping[str, tuple[type, str]]

CONNECTION: Options = {
    "url": (str, "Server: HOST:PORT for gRPC, http://HOST:PORT for HTTP."),
    "model": (str, "Model to ask."),
    "timeout": (float, "Seconds for a whole request, after which the server ends it."),
    "json": (bool, "Print JSON."),
    "keepalive": (float, "Seconds of silence after which the server is probed, and for its answer."),
    "api_key_file": (str, "File with the key that the server asks for."),
    "api_key": (
        str,
        "The key itself, which other users of this machine can see in a command: prefer a file.",
    ),
    "api_key_header": (str, "Its header."),
    "tls_ca": (str, "PEM to trust, of grpcs:// and https://."),
    "tls_certificate": (str, "PEM to show a server that asks (mutual TLS)."),
    "tls_key": (str, "Its key, without a password."),
}

SAMPLING: Options = {
    "max_tokens": (int, "Most tokens of the answer."),
    "min_tokens": (int, "Fewest tokens of the answer."),
    "temperature": (float, "0 is greedy."),
    "top_p": (float, "Draw from the likeliest tokens that hold this probability together."),
    "min_p": (float, "Drop tokens less likely than this share of the likeliest."),
    "top_k": (int, "Draw from so many of the likeliest tokens."),
    "repetition_penalty": (float, "Above 1: tokens of prompt and answer become less likely."),
    "frequency_penalty": (float, "Taken off for each time a token was answered."),
    "presence_penalty": (float, "Taken off once a token was answered."),
    "seed": (int, "The same seed draws the same answer."),
    "stop": (list[str], "Text that ends the answer; may be given many times."),
    "logit_bias": (list[str], "TOKEN=BIAS, by token id; may be given many times."),
    "ignore_eos": (bool, "Go on past the end, to --max-tokens."),
    "num_logprobs": (int, "Report so many alternatives for each token (with --json)."),
    "num_beams": (int, "Search with so many beams; 1 is off. The answer then comes in one piece."),
    "length_penalty": (float, "Of the search: above 0 longer answers gain, below 0 shorter ones."),
    "early_stopping": (str, "Of the search: true, false or never."),
    "no_repeat_ngram_size": (int, "No so many tokens come twice in the answer; 0 is off."),
    "forced_bos_token_id": (int, "The first token of the answer, such as a language of mBART."),
    "forced_eos_token_id": (int, "The last token of an answer cut at --max-tokens."),
    "decoder_start_token_id": (int, "What the decoder of an encoder-decoder starts from."),
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of its `session` and, if it takes one, its `sampling`.

    An option given here goes before the same option given to `halimede` itself. A HalimedeError
    ends the command with its message and exit code.
    """
    own = inspect.signature(function, eval_str=True).parameters
    takes_sampling = "sampling" in own

    @wraps(function)
    def run(ctx: typer.Context, **arguments: Any) -> None:
        session = ctx.obj.taking(_take(arguments, CONNECTION))
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
    """Takes the options out of the arguments; those not given are dropped (0 is given)."""
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
    """Typer reads a command's options from its signature and its annotations."""
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    kept = [p for p in own if p.name not in ("session", "sampling")]
    added = [_parameter(name, kind, text) for name, (kind, text) in options.items()]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*kept, *added)]
    run.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (context, *parameters)}


def _parameter(name: str, kind: type, text: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", help=text, show_default=False)
    panel = "Connection" if name in CONNECTION else "Sampling"
    option.rich_help_panel = panel
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
