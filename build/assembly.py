"""How the models of one kind become the graphs of an engine: what `build.engine` asks of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from build.quantise import Precision
from build.verify import Quality

GRAPH = "model.onnx"
ENCODER = "encoder.onnx"
WEIGHTS = "model.onnx.data"
KERNELS = "kernels.json"


class Progress(Protocol):
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        """A stage of so many steps begins; call the result after each."""


@dataclass(frozen=True)
class Facts:
    """For the manifest; `engine` is what a plan was compiled for, `settings` are those of its server."""

    dialect: str
    kv_dtype: str
    engine: Mapping[str, Any] | None = None
    settings: Mapping[str, int] = field(default_factory=dict)


class Assembly(Protocol):
    def require_buildable(self) -> None:
        """BadInput or Unsupported for all that can be refused before the long work."""

    def write(self, folder: Path, progress: Progress) -> None:
        """The graphs and their weights."""

    def verify(self, folder: Path, progress: Progress, tokens: int) -> Quality:
        """Scores what `write` left on about so many tokens; BuildError when graphs disagree."""

    def facts(self) -> Facts:
        """What has been built: call it last."""


def onnxruntime_facts(precision: Precision) -> Facts:
    return Facts("onnxruntime", "float16" if precision is Precision.FP16 else "float32")
