"""An engine that can run: what opening it on its device has found."""

from __future__ import annotations

from dataclasses import dataclass

from engine.kernels import KernelUse
from engine.manifest import Manifest
from engine.runner import Runner


@dataclass(frozen=True, slots=True)
class Opened:
    """`manifest` is as it is served, `device` as in "cpu" or "cuda:0", `budget_bytes` of its cache;
    `kernels` is of an engine on a CPU.
    """

    manifest: Manifest
    runner: Runner
    device: str = "cpu"
    budget_bytes: int | None = None
    kernels: KernelUse | None = None

    @property
    def computes(self) -> str:
        """What computes there: kernels, or a dialect's runtime."""
        return "kernels" if self.kernels and self.kernels.level else self.manifest.dialect
