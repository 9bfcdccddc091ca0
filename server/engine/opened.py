"""An engine that can run: the result of opening it on its device."""

from __future__ import annotations

from dataclasses import dataclass

from engine.kernels import KernelUse
from engine.manifest import Manifest
from engine.runner import Runner
from engine.settings import Footprint


@dataclass(frozen=True, slots=True)
class Opened:
    """`manifest` is the one that is served, `budget_bytes` the memory that its footprint had to fit, `device`
    is "cpu" or "cuda:0"; `kernels` is None for an engine on a GPU.
    """

    manifest: Manifest
    runner: Runner
    footprint: Footprint
    budget_bytes: int | None = None
    device: str = "cpu"
    kernels: KernelUse | None = None

    @property
    def computes(self) -> str:
        """What computes there: kernels, or a dialect's runtime."""
        return "kernels" if self.kernels and self.kernels.level else self.manifest.dialect
