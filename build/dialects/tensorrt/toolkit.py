"""TensorRT-RTX, which checks graphs on any machine, and TensorRT, which builds plans for the GPU it is on."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from build.errors import BuildError

# A GPU with fp8. The plans that are built for it are thrown away.
_CHECKED_FOR = "SM89"
_GPU_HOST = "docs/gpu.md says what a GPU host has"


class Missing(BuildError):
    """A toolkit cannot be used here; says why, and what would help."""


@dataclass(frozen=True)
class RtxToolkit:
    module: Any

    def begin(self, config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(self.module.ComputeCapability, _CHECKED_FOR), 0)

    def end(self, config: Any) -> None:
        """TensorRT-RTX times nothing."""


@dataclass(frozen=True)
class TensorRtToolkit:
    """Experimental, never run on a GPU. `timings` is a file that grows with every build; one from another
    TensorRT or GPU is replaced.
    """

    module: Any
    timings: Path

    def begin(self, config: Any) -> None:
        for known in (self.timings.read_bytes() if self.timings.is_file() else b"", b""):
            if config.set_timing_cache(config.create_timing_cache(known), False):
                return

    def end(self, config: Any) -> None:
        self.timings.parent.mkdir(parents=True, exist_ok=True)
        part = self.timings.with_name(f"{self.timings.name}.part")
        part.write_bytes(bytes(config.get_timing_cache().serialize()))
        part.replace(self.timings)


def rtx() -> RtxToolkit:
    """TensorRT-RTX; raises Missing where it is not installed."""
    return RtxToolkit(imported("tensorrt_rtx", "pip install '.[tensorrt-check]'"))


def tensorrt(timings: Path) -> TensorRtToolkit:
    """TensorRT; raises Missing where it is not installed."""
    return TensorRtToolkit(imported("tensorrt", _GPU_HOST), timings)


def imported(name: str, remedy: str) -> Any:
    """The module; raises Missing, which ends in the remedy, where it cannot be imported."""
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: a library that it links is missing
        raise Missing(f"{name} cannot be imported ({error}): {remedy}") from error
