"""What a server says of its models: the repository's index and configs, and the cards of engines.

Over gRPC and HTTP the index and the configs hold the same names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from halimede.errors import NotFound, ProtocolError, ServerError
from halimede.results import ModelCard, ModelInfo
from halimede.wire.answer import parse_json, typed
from halimede.wire.faults import ERRORS, server_error

__all__ = [
    "CARD_INPUTS",
    "card_of",
    "engine_of",
    "failed_load",
    "model_info",
    "parts_of",
    "served",
    "unknown_model",
    "version_of",
]

# An ensemble NAME that Halimede built calls NAME_tokenizer and so on. This is the order of loading: the
# step that fails most often is the first.
_STEPS = ("engine", "tokenizer", "detokenizer")
# An engine answers `{"describe": true}` with its card. Triton wants all its inputs: the ids are not read.
CARD_INPUTS: Mapping[str, tuple[str, str | int]] = {
    "input_ids": ("INT32", 0),
    "request": ("BYTES", json.dumps({"describe": True})),
}
# Python adds this and its stack to the message of an error in a step.
_FRAMES = "\n\nAt:"
_VERSION = re.compile(r"version (\d+) is at \w+ state")
_REASON = re.compile(rf"\b(?:{'|'.join(ERRORS)}): .*", re.DOTALL)


def model_info(row: Mapping[str, Any], config: Mapping[str, Any] | None) -> ModelInfo:
    """The model of one row of the index. Only a ready model has a config."""
    config = config or {}
    try:
        steps = config.get("ensemble_scheduling", {}).get("step", ())
        return ModelInfo(
            name=row["name"],
            version=row.get("version", ""),
            state=row.get("state", "") or "UNAVAILABLE",
            reason=row.get("reason", ""),
            backend=config.get("backend") or config.get("platform") or None,
            max_batch_size=config.get("max_batch_size", 0) if config else None,
            steps=tuple(step["model_name"] for step in steps),
            inputs=tuple(tensor["name"] for tensor in config.get("input", ())),
            outputs=tuple(tensor["name"] for tensor in config.get("output", ())),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ProtocolError(f"model {row!r:.100}: unexpected form of the repository's index") from error


def parts_of(model: str, rows: Iterable[ModelInfo]) -> list[str]:
    """The names of the model's steps in the repository, loaded or not, and of the model itself at the end."""
    names = {row.name for row in rows}
    return [name for step in _STEPS if (name := f"{model}_{step}") in names] + [model]


def version_of(model: str, rows: Iterable[ModelInfo]) -> str:
    """The version that serves: the engine's if there is one, because an ensemble's is always 1."""
    ready = {row.name: row.version for row in rows if row.ready}
    return ready.get(parts_of(model, rows)[0], "")


def served(rows: Sequence[ModelInfo]) -> tuple[ModelInfo, ...]:
    """The models that clients call, without steps. A step is named by an ensemble, or like NAME_engine."""
    names = {row.name for row in rows}
    steps = {step for row in rows for step in row.steps}
    steps |= {f"{name}_{step}" for name in names for step in _STEPS}
    return tuple(row for row in rows if row.name not in steps)


def unknown_model(model: str, rows: Sequence[ModelInfo]) -> NotFound:
    names = ", ".join(sorted({row.name for row in served(rows)})) or "nothing"
    return NotFound.of("model", model, f"is not in the server's repository, which has {names}")


def failed_load(model: str, error: ServerError, *, serves: bool) -> ServerError:
    """The model's own reason for a failed load, without Triton's words and Python's stack around it.

    `serves`: the previous version is still loaded.
    """
    text = error.message.partition(_FRAMES)[0].strip()
    reason = _REASON.search(text)
    stated = server_error(reason[0] if reason else text, error.code)
    found = _VERSION.search(text)
    what = f"{model} version {found[1]}" if found else model
    rest = "; the previous version still serves" if serves else ""
    message = f"{what} did not load: {stated.message}{rest}"
    return type(stated)(message, stated.code, stated.field, stated.value, stated.limit)


def engine_of(model: str) -> str:
    """The name of an ensemble's engine."""
    return f"{model}_engine"


def card_of(chunk: str) -> ModelCard:
    """The card in the `chunk` output of an engine. Raises ProtocolError for anything else."""
    described: Mapping[str, Any] = typed(parse_json(chunk, dict).get("describe"), dict, "describe")
    missing = [f.name for f in fields(ModelCard) if f.default is MISSING and f.name not in described]
    if missing:
        raise ProtocolError(f"describe: {', '.join(missing)} is missing")
    return ModelCard(**{f.name: described[f.name] for f in fields(ModelCard) if f.name in described})
