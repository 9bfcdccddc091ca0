"""From config.json to the description of a model: one adapter for each line of families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from build.architecture import llama
from build.architecture.parts import Architecture
from build.errors import BadInput, Unsupported

Adapter = Callable[[Mapping[str, Any]], Architecture]

_ADAPTERS: dict[str, Adapter] = dict.fromkeys(llama.FAMILIES, llama.describe)

FAMILIES = tuple(_ADAPTERS)


def describe(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json; Unsupported names what cannot be built."""
    family = str(config.get("model_type"))
    if family not in _ADAPTERS:
        raise Unsupported(f"model family {family!r} is not supported: {', '.join(FAMILIES)} are")
    try:
        return _ADAPTERS[family](config)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise BadInput(f"config.json: is damaged: {type(error).__name__}: {error}") from error
