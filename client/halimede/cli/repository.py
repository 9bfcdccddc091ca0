"""halimede models, load, unload and reload: what a server serves, and changes to it while it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from halimede.cli.output import print_json
from halimede.cli.session import Session
from halimede.errors import InvalidArgument, NotFound, PermissionDenied, ProtocolError, Unavailable
from halimede.results import ModelCard, ModelInfo
from halimede.wire.repository import engine_of, served, version_of

if TYPE_CHECKING:
    from halimede._sync.client import Client

__all__ = ["load", "models", "reload", "unload"]

_Name = Annotated[str | None, typer.Argument(help="The model; else the one of --model.")]
_WIDE = 1000
_COLUMNS = (
    *("model", "version", "state", "task", "precision", "size", "limits", "KV cache", "quality"),
    "kernels",
)
_UNLOADED = ("", "unloaded")  # why Triton says that a model is UNAVAILABLE


def models(
    session: Session,
    every: Annotated[
        bool, typer.Option("--all", help="The steps of the ensembles too, and versions that are gone.")
    ] = False,
) -> None:
    """List the models of the server: task, precision, size, limits and quality.

    Limits are slots x context, the longest source of an encoder, and the queue. The KV cache is that
    of a token and of all slots, and the context up to which the memory would do. Quality is what
    the build measured: perplexity beside that of the original weights, and how often both choose
    the same token. Kernels is the level that computes on a CPU, or why there is none. Models that
    are not Halimede's are listed without.

    [dim]halimede models[/]

    [dim]halimede models --json --all[/]
    """
    with session.client() as client:
        rows = client.models()
        cards = _cards(client, rows)
    shown = rows if every else _shown(rows)
    if session.json:
        print_json([asdict(model) | {"card": cards.get(model.name)} for model in shown])
        return
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for model in shown:
        table.add_row(*_row(model, cards.get(model.name)))
    # Off a terminal each model is one line, for grep and awk.
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(table)


def load(session: Session, name: _Name = None) -> None:
    """Load a model of the repository, or what is new of it; the others serve on. Waits until it is ready.

    [dim]halimede load gpt2[/]
    """
    _load(session, name, again=False)


def reload(session: Session, name: _Name = None) -> None:
    """Put the newest version of a loaded model, or its changed configuration, in the place of the old one.

    The old one answers until the new one is ready, and its streams end in order.

    [dim]python -m build smollm2 --precision int4 --new-version && halimede reload smollm2[/]
    """
    _load(session, name, again=True)


def _load(session: Session, name: str | None, *, again: bool) -> None:
    model = name or session.model
    with session.client() as client:
        change = client.reload if again else client.load
        version = change(model, timeout=session.timeout)
    if session.json:
        print_json({"model": model, "state": "READY", "version": version})
        return
    print(f"{model} is ready, version {version}")


def unload(session: Session, name: _Name = None) -> None:
    """Unload a model, once the requests in flight have ended; the other models serve on.

    [dim]halimede unload gpt2[/]
    """
    model = name or session.model
    with session.client() as client:
        client.unload(model, timeout=session.timeout)
    if session.json:
        print_json({"model": model, "state": "UNAVAILABLE", "version": ""})
        return
    print(f"{model} is unloaded")


def _cards(client: Client, rows: Iterable[ModelInfo]) -> Mapping[str, ModelCard]:
    """Of the ready ensembles that have an engine of ours."""
    ready = {model.name for model in rows if model.ready}
    cards = {name: _card(client, name) for name in ready if engine_of(name) in ready}
    return {name: card for name, card in cards.items() if card is not None}


def _card(client: Client, model: str) -> ModelCard | None:
    """None where something else is called as an engine of ours would be, or it went a moment ago."""
    try:
        return client.card(model)
    except (InvalidArgument, NotFound, PermissionDenied, ProtocolError, Unavailable):
        return None


def _shown(rows: Sequence[ModelInfo]) -> list[ModelInfo]:
    """A row for each model that clients call, with the version of its engine that serves."""
    best: dict[str, ModelInfo] = {}
    for row in served(rows):
        if row.name not in best or row.ready:
            best[row.name] = row
    return [replace(row, version=version_of(row.name, rows)) for row in best.values()]


def _row(model: ModelInfo, card: ModelCard | None) -> tuple[str, ...]:
    state = _state(model)
    if card is None:
        return model.name, model.version, state, "", "", "", "", "", model.backend or "", ""
    size = f"{card.size_bytes / 1e6:.0f} MB"
    precision = card.precision if card.device == "cpu" else f"{card.precision} on {card.device}"
    if card.experimental:
        precision += ", experimental"
    limits, cache, quality = _limits(card), _cache(card), _quality(card)
    kernels = card.kernels or (f"none: {card.kernels_missing}" if card.kernels_missing else "")
    return model.name, model.version, state, card.task, precision, size, limits, cache, quality, kernels


def _limits(card: ModelCard) -> str:
    source = f", source {card.max_source}" if card.max_source else ""
    return f"{card.slots} x {card.max_context}{source}, queue {card.max_queue}"


def _cache(card: ModelCard) -> str:
    if card.kv_bytes_per_token is None or card.kv_bytes is None:
        return ""
    fits = "" if card.kv_max_context is None else f", room for {card.kv_max_context}"
    return f"{card.kv_bytes_per_token / 1e3:.1f} kB/token, {card.kv_bytes / 1e6:.0f} MB{fits}"


def _state(model: ModelInfo) -> str:
    if model.state == "UNAVAILABLE" and model.reason in _UNLOADED:
        return "not loaded"
    return f"{model.state}: {model.reason}" if model.reason else model.state


def _quality(card: ModelCard) -> str:
    told = card.quality
    found = []
    if "perplexity" in told and "reference_perplexity" in told:
        found.append(f"ppl {told['perplexity']:.2f} (reference {told['reference_perplexity']:.2f})")
    if "greedy_agreement" in told:
        found.append(f"agreement {told['greedy_agreement']:.1%}")
    return ", ".join(found)
