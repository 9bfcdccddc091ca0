"""What was measured on the real server, and the step times that a simulated replica takes from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

LONGEST_CHUNK = 128


@dataclass(frozen=True)
class Calibration:
    """`decode_s` and `busy_cores` by running requests; `cold_start_s` from the process's start to ready.

    `prefill_share`: beside running streams a chunk of a prompt takes so many times the decode's time.
    """

    slots: int
    max_queue: int
    max_context: int
    decode_s: Mapping[int, float]
    busy_cores: Mapping[int, float]
    idle_cores: float
    prefill_call_s: float
    prefill_token_s: float
    prefill_share: float
    cold_start_s: tuple[float, ...]
    cores: int
    machine: str
    measured: str

    @property
    def cold_start(self) -> float:
        """Seconds; the median."""
        return statistics.median(self.cold_start_s)

    def decode(self, running: int) -> float:
        """Seconds of one step that gives each running request a token."""
        return interpolated(self.decode_s, running)

    def cores_used(self, running: int) -> float:
        return interpolated(self.busy_cores, max(1, running))

    def chunk(self, running: int) -> int:
        """Tokens of a prompt in one step beside so many running requests."""
        if not running:
            return LONGEST_CHUNK
        return max(
            8, min(LONGEST_CHUNK, int(self.prefill_share * self.decode(running) / self.prefill_token_s))
        )

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load(path: Path) -> Calibration:
    """Raises ValueError for what is no calibration."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        for key in ("decode_s", "busy_cores"):
            found[key] = {int(at): float(value) for at, value in found[key].items()}
        return Calibration(**found | {"cold_start_s": tuple(found["cold_start_s"])})
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"{path}: not a calibration ({problem}); measure one with --calibrate") from problem


def interpolated(table: Mapping[int, float], at: int) -> float:
    """Linear between the measured points, constant beyond them."""
    points = sorted(table.items())
    if at <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return points[-1][1]


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope, by least squares."""
    found = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    return found.intercept, found.slope
