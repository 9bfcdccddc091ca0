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

# An ensemble NAME that Halimede built calls NAME_tokenizer and so on. In the order of loading: what
# fails most often comes first.
_STEPS = ("engine", "tokenizer", "detokenizer")
# The engine step asks for ids beside each request; nobody looks at these.
CARD_INPUTS: Mapping[str, tuple[str, str | int]] = {
    "input_ids": ("INT32", 0),
    "request": ("BYTES", json.dumps({"describe": True})),
}
# What Python adds to the message of an error in a step.
_FRAMES = "\n\nAt:"
_VERSION = re.compile(r"version (\d+) is at \w+ state")
_REASON = re.compile(rf"\b(?:{'|'.join(ERRORS)}): .*", re.DOTALL)


def model_info(row: Mapping[str, Any], config: Mapping[str, Any] | None) -> ModelInfo:
    """A row of the index, with the config of the model if it has one."""
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
        raise ProtocolError(f"model {row!r:.100}: unexpected form of the repository") from error


def parts_of(model: str, rows: Iterable[ModelInfo]) -> list[str]:
    """The steps of a model that the repository has, loaded or not, and the model itself."""
    names = {row.name for row in rows}
    return [name for step in _STEPS if (name := f"{model}_{step}") in names] + [model]


def version_of(model: str, rows: Iterable[ModelInfo]) -> str:
    """The version that is ready: of the engine where there is one, for the ensemble's is always 1."""
    ready = {row.name: row.version for row in rows if row.ready}
    return ready.get(parts_of(model, rows)[0], "")


def served(rows: Sequence[ModelInfo]) -> tuple[ModelInfo, ...]:
    """The models that clients call: steps are those that an ensemble names, or that are called as one's."""
    names = {row.name for row in rows}
    steps = {step for row in rows for step in row.steps}
    steps |= {f"{name}_{step}" for name in names for step in _STEPS}
    return tuple(row for row in rows if row.name not in steps)


def unknown_model(model: str, rows: Sequence[ModelInfo]) -> NotFound:
    names = ", ".join(sorted({row.name for row in served(rows)})) or "nothing"
    return NotFound.of("model", model, f"is not in the server's repository, which has {names}")


def failed_load(model: str, error: ServerError, *, serves: bool) -> ServerError:
    """What a model says of its failed start, without Triton's words and Python's frames around it.

    `serves`: an earlier version of it still does.
    """
    text = error.message.partition(_FRAMES)[0].strip()
    reason = _REASON.search(text)
    told = server_error(reason[0] if reason else text, error.code)
    found = _VERSION.search(text)
    what = f"{model} version {found[1]}" if found else model
    rest = "; the version before it serves on" if serves else ""
    message = f"{what} did not load: {told.message}{rest}"
    return type(told)(message, told.code, told.field, told.value, told.limit)


def engine_of(model: str) -> str:
    """The engine step of an ensemble."""
    return f"{model}_engine"


def card_of(chunk: str) -> ModelCard:
    """The card in a chunk of the engine step; ProtocolError for anything else."""
    told: Mapping[str, Any] = typed(parse_json(chunk, dict).get("describe"), dict, "describe")
    missing = [f.name for f in fields(ModelCard) if f.default is MISSING and f.name not in told]
    if missing:
        raise ProtocolError(f"describe: {', '.join(missing)} is missing")
    return ModelCard(**{field.name: told[field.name] for field in fields(ModelCard) if field.name in told})
