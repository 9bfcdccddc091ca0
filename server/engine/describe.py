"""What an engine says of itself: who serves what, of which quality, within which limits.

A request to the engine step of `{"describe": true}`, with any token ids, is answered by one final chunk of
`{"describe": {…}}`.
"""

from __future__ import annotations

import json
from typing import Any, Final

from engine.manifest import Manifest
from engine.settings import Settings

_LONGEST_REQUEST: Final = 64


def describe(manifest: Manifest, settings: Settings, device: str) -> dict[str, Any]:
    """`device` as in "cpu" or "cuda:0"; sizes are bytes, limits are tokens and requests."""
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
        "device": device,
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
