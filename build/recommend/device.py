"""What engines run on, and what it sustains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from build.quantise import Precision

GIB = 2**30


class Kind(Enum):
    """Which engines run there: ONNX Runtime's with float32 caches, or TensorRT's with 16 bits."""

    CPU = "cpu"
    GPU = "gpu"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """In the order in which they are tried; those after int4 only where they are named."""
        if self is Kind.CPU:
            return (Precision.INT8, Precision.INT4, Precision.FP32)
        return (Precision.FP16, Precision.INT8, Precision.INT4, Precision.FP8, Precision.BF16)

    @property
    def wide_bytes(self) -> int:
        """Of a number that no precision rounds: caches, tables, activations."""
        return 4 if self is Kind.CPU else 2


@dataclass(frozen=True)
class Device:
    """Rates that are sustained, not peaks: `bandwidth` in bytes/s, `compute` in operations/s by precision.

    A precision that is not in `compute` cannot be had there. `layer_s` is what a layer costs a step beside
    its bytes and operations: starting its operators. `memory` is None where it is asked of the machine.
    `source` says where the figures are from.
    """

    name: str
    title: str
    kind: Kind
    memory: int | None
    bandwidth: float
    compute: Mapping[Precision, float]
    layer_s: float
    source: str
