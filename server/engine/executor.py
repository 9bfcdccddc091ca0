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
    """Where a tensor of one step stands, and its shape."""

    address: int
    shape: tuple[int, ...]


class Step(Protocol):
    """A graph with all its tensors in their places."""

    def run(self) -> None:
        """Run it after the copies that were called before; copies that are called later come after it."""


class Executor(Protocol):
    """Types are the graph's own: a place has none."""

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the inputs that the graph has."""

    def prepare(self, profile: Profile, places: Mapping[str, Place], *, repeated: bool) -> Step:
        """A step over these places, which name every input and output.

        One that is `repeated` may be run any number of times, between others; another one at once, before
        the next is prepared. Steps never overlap. Raises ArtifactError for places that the graph refuses.
        """
