"""An engine that can run: what opening it on its device has found."""

from __future__ import annotations

from dataclasses import dataclass

from engine.kernels import KernelUse
from engine.manifest import Manifest
from engine.runner import Runner
from engine.settings import Footprint


@dataclass(frozen=True, slots=True)
class Opened:
    """`manifest` is as it is served, `budget_bytes` the memory that its footprint had to fit, `device` as in
    "cpu" or "cuda:0"; `kernels` is of an engine on a CPU.
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
