"""What was checked on the way to a plan, for the case that none can be built here."""

from __future__ import annotations

from pathlib import Path

from build.errors import BuildError


class Unbuilt(BuildError):
    """The graphs are sound as far as can be told here; a plan takes a GPU. The message is a whole report."""

    exit_code = 3


class Report:
    def __init__(self) -> None:
        self._lines: list[str] = []
        self._kept: Path | None = None

    def passed(self, check: str) -> None:
        self._lines.append(f"passed   {check}")

    def skipped(self, check: str) -> None:
        self._lines.append(f"skipped  {check}")

    def kept(self, folder: Path) -> None:
        self._kept = folder

    def unbuilt(self, reason: str) -> Unbuilt:
        lines = [*self._lines, f"not done the plan: {reason}"]
        if self._kept is not None:
            lines.append(f"kept     the checked ONNX files: {self._kept}")
        lines.append(
            "Nothing was published. Run the same command on the GPU host that will serve the engine, inside"
            " its Triton image: docs/tensorrt.md"
        )
        return Unbuilt("\n".join(lines))
