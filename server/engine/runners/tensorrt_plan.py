"""Experimental: what a TensorRT plan was compiled for, from its manifest; it runs on nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from engine.core.errors import ArtifactError, SettingsError
from engine.edge.artifact import Manifest
from engine.edge.settings import Settings

# The dialect of its manifest.
TENSORRT: Final = "tensorrt"


@dataclass(frozen=True, slots=True)
class Plan:
    """The largest values of its profiles; `capacity` and `source_capacity` are fixed in the graph."""

    tensorrt: str
    compute_capability: str
    rows: int
    prefill: int
    capacity: int
    source_capacity: int


def read_plan(manifest: Manifest) -> Plan:
    """Raises ArtifactError when the manifest's entry for the plan is missing or incomplete."""
    try:
        profiles = manifest.engine["profiles"]
        return Plan(
            tensorrt=str(manifest.engine["tensorrt"]),
            compute_capability=str(manifest.engine["compute_capability"]),
            **{name: int(profiles[name]) for name in ("rows", "prefill", "capacity", "source_capacity")},
        )
    except (KeyError, TypeError, ValueError) as error:
        problem = f"incomplete: engine: {error!r}; {_rebuild(manifest)}"
        raise ArtifactError("manifest", problem) from None


def check_host(plan: Plan, manifest: Manifest, tensorrt: str, compute_capability: str) -> None:
    """Raises ArtifactError unless this host has the TensorRT and the kind of GPU that it was compiled for."""
    if plan.tensorrt != tensorrt:
        problem = f"compiled by TensorRT {plan.tensorrt}, this host has {tensorrt}; {_rebuild(manifest)}"
        raise ArtifactError("model.plan", problem)
    if plan.compute_capability != compute_capability:
        problem = (
            f"compiled for compute capability {plan.compute_capability}, this GPU has {compute_capability}; "
            f"{_rebuild(manifest)}"
        )
        raise ArtifactError("model.plan", problem)


def check_settings(plan: Plan, manifest: Manifest, settings: Settings) -> Settings:
    """The settings with the plan's own context and source, which the KV cache always takes in full.

    Raises SettingsError for one that the plan has no room for.
    """
    source = settings.source_capacity(manifest.shape)
    for name, wanted, limit in (
        ("slots", settings.slots, plan.rows),
        ("prefill_chunk", settings.prefill_chunk, plan.prefill),
        ("max_context", settings.max_context, plan.capacity),
        ("max_source", source, plan.source_capacity),
    ):
        if wanted > limit:
            problem = f"{wanted}, must be at most {limit} (the plan's); or {_rebuild(manifest)}"
            raise SettingsError(name, problem)
    return replace(settings, max_context=plan.capacity, max_source=plan.source_capacity)


def _rebuild(manifest: Manifest) -> str:
    return f"build it again on this host: make engines MODEL={manifest.name} ENGINE=tensorrt FORCE=1"
