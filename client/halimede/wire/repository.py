"""The model repository's index and configs; over gRPC and HTTP they hold the same names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from halimede.errors import ProtocolError
from halimede.results import ModelInfo

__all__ = ["model_info"]


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
