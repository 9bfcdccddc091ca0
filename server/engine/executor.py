"""What runs a compiled graph for the TensorRT runner: TensorRT itself, or in tests ONNX Runtime on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Profile(IntEnum):
    """The optimisation profiles of a plan, by their index."""

    DECODE = 0
    PREFILL = 1


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a tensor of one step, and its shape."""

    address: int
    shape: tuple[int, ...]


class Step(Protocol):
    """A graph with all its tensors in their places."""

    def run(self) -> None:
        """Run it after the copies that were issued before; copies that are issued later come after it."""


class Executor(Protocol):
    """Types are the graph's own: a place has none."""

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the inputs that the graph has."""

    def prepare(self, profile: Profile, places: Mapping[str, Place], *, repeated: bool) -> Step:
        """A step over these places, which name every input and output.

        A `repeated` step may run any number of times, between others. Any other step must run before the next
        one is prepared. Steps never overlap. Raises ArtifactError for places that the graph refuses.
        """
