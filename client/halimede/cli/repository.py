"""halimede models, load and unload: what a server serves, and changes to it while it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from halimede.cli.output import print_json
from halimede.cli.session import Session
from halimede.errors import NotFound, ServerError
from halimede.results import ModelCard, ModelInfo
from halimede.wire.card import engine_of

if TYPE_CHECKING:
    from halimede._sync.client import Client

__all__ = ["load", "models", "unload"]

_Name = Annotated[str | None, typer.Argument(help="The model; else the one of --model.")]
_WIDE = 1000
_COLUMNS = ("model", "version", "state", "task", "precision", "size", "limits", "quality")


def models(
    session: Session,
    every: Annotated[bool, typer.Option("--all", help="The steps of the ensembles too.")] = False,
) -> None:
    """List the models of the server: task, precision, size, limits and quality.

    [dim]halimede models[/]

    [dim]halimede models --json --all[/]
    """
    with session.client() as client:
        found = client.models()
        shown = found if every else _without_steps(found)
        cards = _cards(client, found)
    if session.json:
        print_json([asdict(model) | {"card": cards.get(model.name)} for model in shown])
        return
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for model in shown:
        table.add_row(*_row(model, cards.get(model.name)))
    # Off a terminal each model is one line, for grep and awk.
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(table)


def load(session: Session, name: _Name = None) -> None:
    """Load a model of the repository, or its newest version; the others serve on.

    [dim]halimede load gpt2[/]
    """
    model = name or session.model
    with session.client() as client:
        try:
            client.load(model)
        except ServerError as error:
            raise _explained(client, model, error) from error
    print(f"{model} is loaded")


def unload(session: Session, name: _Name = None) -> None:
    """Unload a model; requests in flight end in order, the other models serve on.

    [dim]halimede unload gpt2[/]
    """
    model = name or session.model
    with session.client() as client:
        if model not in {info.name for info in client.models()}:
            raise _unknown(client, model)
        client.unload(model)
    print(f"{model} is unloaded")


def _cards(client: Client, found: Iterable[ModelInfo]) -> Mapping[str, ModelCard]:
    """Of the ready ensembles that have an engine of ours."""
    ready = {model.name for model in found if model.ready}
    return {name: client.card(name) for name in ready if engine_of(name) in ready}


def _without_steps(found: tuple[ModelInfo, ...]) -> tuple[ModelInfo, ...]:
    """Steps are those that a ready ensemble names, or that are called as an ensemble's steps are."""
    names = {model.name for model in found}
    steps = {step for model in found for step in model.steps}
    steps |= {f"{name}_{step}" for name in names for step in ("tokenizer", "engine", "detokenizer")}
    return tuple(model for model in found if model.name not in steps)


def _row(model: ModelInfo, card: ModelCard | None) -> tuple[str, ...]:
    state = f"{model.state}: {model.reason}" if model.reason else model.state
    if card is None:
        return model.name, model.version, state, "", "", "", "", model.backend or ""
    size = f"{card.size_bytes / 1e6:.0f} MB"
    precision = card.precision if card.device == "cpu" else f"{card.precision} on {card.device}"
    return model.name, model.version, state, card.task, precision, size, _limits(card), _quality(card)


def _limits(card: ModelCard) -> str:
    source = f", source {card.max_source}" if card.max_source else ""
    return f"{card.slots} x {card.max_context}{source}, queue {card.max_queue}"


def _quality(card: ModelCard) -> str:
    quality = card.quality
    if "perplexity" not in quality or "reference_perplexity" not in quality:
        return ""
    return f"ppl {quality['perplexity']:.2f} (reference {quality['reference_perplexity']:.2f})"


def _explained(client: Client, model: str, error: ServerError) -> ServerError:
    """Triton's reason; for a model that it does not have, those that it has."""
    return error if model in {info.name for info in client.models()} else _unknown(client, model)


def _unknown(client: Client, model: str) -> NotFound:
    names = ", ".join(info.name for info in _without_steps(client.models())) or "nothing"
    return NotFound.of("model", model, f"is not in the server's repository, which has {names}")
