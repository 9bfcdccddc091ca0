"""How the models of one kind become the graphs of an engine: what `build.engine` asks of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from build.verify import Quality

GRAPH = "model.onnx"
ENCODER = "encoder.onnx"
WEIGHTS = "model.onnx.data"


class Progress(Protocol):
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        """A stage of so many steps begins; call the result after each."""


class Assembly(Protocol):
    def require_buildable(self) -> None:
        """BadInput or Unsupported for all that can be refused before the long work."""

    def write(self, folder: Path, progress: Progress) -> None:
        """The graphs and their weights."""

    def verify(self, folder: Path, progress: Progress, tokens: int) -> Quality:
        """Scores what `write` left on about so many tokens; BuildError when graphs disagree."""
