"""What `build.engine` asks of the code that makes an engine's graphs, and what both engines share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from build.verify import Quality, Session

GRAPH = "model.onnx"
ENCODER = "encoder.onnx"
WEIGHTS = "model.onnx.data"
# The decoder once more, giving logits for all positions: for verification, and never published.
ALL_POSITIONS = "all_positions.onnx"


class Progress(Protocol):
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        """A stage of so many steps begins; call the result after each."""


@dataclass(frozen=True)
class Facts:
    """For the manifest: `engine` is what a plan was compiled for, `settings` are those of its server."""

    dialect: str
    kv_dtype: str
    engine: Mapping[str, Any] | None = None
    settings: Mapping[str, int] = field(default_factory=dict)


Also = Callable[[Callable[[int], Session]], None]


class Assembly(Protocol):
    """Makes one engine; its methods are called in this order."""

    def require_buildable(self) -> None:
        """Raises BadInput or Unsupported for all that can be refused before the long work."""

    def write(self, folder: Path, progress: Progress) -> None:
        """Writes the graphs and their weights."""

    def verify(self, folder: Path, progress: Progress, tokens: int, also: Also | None = None) -> Quality:
        """Scores what `write` left on about so many tokens; BuildError when graphs disagree.

        `also` is given a way to open the engine, which scores every position of a prompt, with so many.
        """

    def facts(self) -> Facts:
        """Says what has been built."""
