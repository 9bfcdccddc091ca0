"""halimede models, load, unload and reload: the models of a running server."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
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

_Name = Annotated[str | None, typer.Argument(help="Name of the model; default: --model.")]
_WIDE = 1000
_COLUMNS = (
    *("model", "version", "state", "task", "precision", "size", "limits", "KV cache", "quality"),
    "kernels",
)
_UNLOADED = ("", "unloaded")  # Triton's reasons for an UNAVAILABLE model that did not fail


def models(
    session: Session,
    every: Annotated[
        bool, typer.Option("--all", help="Include the steps of ensembles, and versions that are unloaded.")
    ] = False,
) -> None:
    """List the server's models with their task, precision, size, limits and quality.

    Limits are slots x context, the longest source text of an encoder, and the queue. The KV cache is
    given for one token and for all slots, with the largest context for which its memory suffices.
    Quality was measured by the build: the perplexity next to that of the original weights, and how
    often both choose the same token. Kernels is the level of the CPU kernels, or the reason why there
    are none. For a model that is not Halimede's, only its backend is known.

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
    # If stdout is not a terminal, each model is one line, for grep and awk.
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE).print(table)


def load(session: Session, name: _Name = None) -> None:
    """Load a model, or the newest version of a loaded one, and wait until it is ready.

    Other models keep serving.

    [dim]halimede load gpt2[/]
    """
    _load(session, name, again=False)


def reload(session: Session, name: _Name = None) -> None:
    """Replace a loaded model by its newest version or changed configuration.

    The old version serves until the new one is ready, and its streams run to their end.

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
    """Drain and unload a model: its running requests end first.

    Other models keep serving.

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
    """The cards of the ready ensembles with an engine of Halimede, by the ensemble's name."""
    ready = {model.name for model in rows if model.ready}
    cards: dict[str, ModelCard] = {}
    for name in ready:
        if engine_of(name) in ready:
            # Another kind of model may have an engine's name, or the engine has just been unloaded.
            with suppress(InvalidArgument, NotFound, PermissionDenied, ProtocolError, Unavailable):
                cards[name] = client.card(name)
    return cards


def _shown(rows: Sequence[ModelInfo]) -> list[ModelInfo]:
    """One row for each model that clients call, with the version that serves."""
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
    measured, found = card.quality, []
    if "perplexity" in measured and "reference_perplexity" in measured:
        found.append(f"ppl {measured['perplexity']:.2f} (reference {measured['reference_perplexity']:.2f})")
    if "greedy_agreement" in measured:
        found.append(f"agreement {measured['greedy_agreement']:.1%}")
    return ", ".join(found)
