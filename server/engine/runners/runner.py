"""The interface of runners, which is all that the loop knows of them, and of what runs a compiled graph.

A runner owns the weights and the KV cache of `slots` rows; with an encoder a row has a cross cache too, and
the length of the source in it. It runs what the scheduler decided and does not keep track of tokens.

An `Executor` runs a compiled graph for the TensorRT runner: TensorRT itself, or in tests ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Runner(Protocol):
    """All logits are float32; a returned array is valid, and may be written to, until the next call.

    A row of an encoder-decoder is encoded, then decodes from position 0; it is never prefilled.
    """

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        """Put `tokens[i]` at `positions[i]` of row i; returns logits (rows, vocab)."""

    def prefill(self, slot: int, start: int, tokens: Sequence[int]) -> Floats:
        """Put the tokens at `start`… of the row; returns the logits after the last one (1, vocab)."""

    def encode(self, slot: int, tokens: Sequence[int]) -> None:
        """Run the encoder on the whole source, and store cross keys, cross values and length in the row."""

    def copy(self, source: int, target: int, tokens: int, *, start: int = 0, cross: bool = True) -> None:
        """Copy the positions `start` to `tokens` (excluded) of a row to another.

        Its source goes along, unless `cross` is False: the beams of one request share theirs.
        """

    def swap(self, a: int, b: int, tokens: int) -> None:
        """Exchange the first `tokens` positions of two rows, and their sources."""


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens that go to `start`… of a row, for the logits after the last `wanted` of them, or after all."""

    row: int
    start: int
    tokens: tuple[int, ...]
    wanted: int | None = None

    @property
    def logits(self) -> int:
        """How many of its tokens get logits."""
        return len(self.tokens) if self.wanted is None else self.wanted


@runtime_checkable
class Verifier(Runner, Protocol):
    """A runner whose logits of a token are the same to the last bit, whatever else is in the call.

    Only then can it compute tokens before it is known whether they are the answer's, and decode rows together
    with a chunk of a prompt.
    """

    def verify(self, runs: Sequence[Run]) -> Floats:
        """Put the tokens where they go; returns the logits that are wanted (of all runs, vocab). No two runs
        are of one row.
        """


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
