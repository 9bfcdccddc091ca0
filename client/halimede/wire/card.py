"""What an engine says of itself when it is asked with `{"describe": true}` instead of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from halimede.errors import ProtocolError
from halimede.results import ModelCard
from halimede.wire.answer import parse_json, typed

__all__ = ["CARD_INPUTS", "card_of", "engine_of"]

# The engine step asks for ids beside each request; nobody looks at these.
CARD_INPUTS: Mapping[str, tuple[str, str | int]] = {
    "input_ids": ("INT32", 0),
    "request": ("BYTES", json.dumps({"describe": True})),
}


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
