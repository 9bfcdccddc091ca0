"""What a pass of a chain is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from build.checkpoint import Checkpoint


class Kind(IntEnum):
    """In a chain no kind stands before a smaller one: what was rounded is neither cut nor turned."""

    PRUNE = 0
    TRANSFORM = 1
    QUANTISE = 2


@dataclass(frozen=True)
class Cost:
    """What a pass will take at most: multiplications and additions of fp32, and bytes of memory beside the
    program's own.
    """

    operations: float
    memory: int


def _ignore(_noted: Mapping[str, Any]) -> None:
    """The default of `Tools.note`."""


@dataclass(frozen=True)
class Tools:
    """What passes share.

    `texts` are what a pass may read, none of them part of a text that is scored; `seed` decides whatever is
    drawn; `stage` begins a stage of so many steps, and its result is called after each; `note` takes what the
    lineage is to say of this step, as JSON.
    """

    texts: tuple[str, ...]
    seed: int
    stage: Callable[[str, int], Callable[[], None]]
    note: Callable[[Mapping[str, Any]], None] = _ignore


class Pass(Protocol):
    """A module of `build.compress.passes`.

    `Options` is a frozen dataclass; BadInput of its creation names the field, the value and the limit.
    """

    @property
    def KIND(self) -> Kind: ...  # noqa: N802
    @property
    def Options(self) -> type[Any]: ...  # noqa: N802

    def require(self, checkpoint: Checkpoint, options: Any) -> None:
        """BadInput or Unsupported for what cannot be done to this checkpoint; reads no weights."""

    def cost(self, checkpoint: Checkpoint, options: Any) -> Cost:
        """An estimate from the config alone."""

    def run(self, checkpoint: Checkpoint, options: Any, tools: Tools) -> Checkpoint:
        """Another checkpoint, under the same names, whose config describes it; the given one is unchanged.

        The same inputs give the same weights on one kind of processor.
        """
