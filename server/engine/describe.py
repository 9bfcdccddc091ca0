"""The model's card: what an engine serves, of which quality, on which device, within which limits.

A request to the engine step of `{"describe": true}`, with any token ids, is answered by one final chunk of
`{"describe": {…}}`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from engine.opened import Opened
from engine.plan import TENSORRT, check_settings, read_plan
from engine.settings import Settings

_LONGEST_REQUEST: Final = 64


def describe(opened: Opened, settings: Settings) -> dict[str, Any]:
    """`runner` is what computes: the kernels, whose level is `kernels`, or a dialect's runtime;
    `kernels_missing` is the reason for no kernels. Sizes are bytes, limits are tokens and requests. Engines
    on a GPU are `experimental`: none has run on one yet.
    """
    manifest, kernels = opened.manifest, opened.kernels
    return {
        "name": manifest.name,
        "task": manifest.task,
        "dialect": manifest.dialect,
        "precision": manifest.precision,
        "size_bytes": manifest.size_bytes,
        "quality": dict(manifest.quality),
        "model": dict(manifest.model),
        "licence": manifest.licence,
        "slots": settings.slots,
        "max_context": settings.max_context,
        "max_source": settings.source_capacity(manifest.shape),
        "max_queue": settings.max_queue,
        "device": opened.device,
        "experimental": opened.device != "cpu",
        "runner": opened.computes,
        "kernels": kernels and kernels.level,
        "kernels_missing": kernels and kernels.missing,
        "speculative_tokens": settings.speculative_tokens,
    } | _kv_cache(opened, settings)


def _kv_cache(opened: Opened, settings: Settings) -> dict[str, int | None]:
    """A token of an answer takes a position, and one of a prompt, which with an encoder is the source.

    `kv_max_context` is the largest max_context that so many slots could have within the budget.
    """
    manifest, footprint, budget = opened.manifest, opened.footprint, opened.budget_bytes
    shape = manifest.shape
    if manifest.dialect == TENSORRT:
        settings = check_settings(read_plan(manifest), manifest, settings)
    return {
        "kv_bytes_per_token": shape.kv_bytes(1, 1),
        "kv_bytes_per_source_token": shape.kv_bytes(1, 0, 1) if shape.has_encoder else 0,
        "kv_bytes_per_slot": footprint.cache(replace(settings, slots=1)),
        "kv_bytes": footprint.cache(settings),
        "kv_budget_bytes": budget,
        "kv_max_context": None if budget is None else footprint.max_context(settings, budget),
    }


def asks_to_describe(request: str) -> bool:
    """Whether this is the request above, and not one for an answer."""
    if len(request) > _LONGEST_REQUEST:
        return False
    try:
        return bool(json.loads(request) == {"describe": True})
    except (ValueError, RecursionError):
        return False


def description_chunk(description: dict[str, Any]) -> bytes:
    return json.dumps({"describe": description}, separators=(",", ":")).encode()
