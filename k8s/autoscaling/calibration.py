"""What was measured on the real server, and the step times that a simulated replica takes from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Calibration:
    """`decode_s` and `busy_cores` by running requests; `cold_start_s` from the process's start to ready.

    `prefill_stall`: beside running streams the engine lets a chunk of a prompt take so many decodes' time.
    A request costs `request_s` once and `prefill_call_s` for each chunk of its prompt. `prefill_token_s` is
    of a token with nothing before it. Steps take `slowdown` times as long as the parts that were timed one
    by one: so the model does what the server did under load.
    """

    slots: int
    max_queue: int
    max_context: int
    decode_s: Mapping[int, float]
    busy_cores: Mapping[int, float]
    idle_cores: float
    request_s: float
    prefill_call_s: float
    prefill_token_s: float
    prefill_stall: float
    cold_start_s: tuple[float, ...]
    slowdown: float
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


def fitted(rows: Sequence[Sequence[float]], values: Sequence[float]) -> tuple[float, float, float]:
    """Costs of three kinds, none below 0, that explain the values best: least squares of relative errors."""
    scale = np.array(values)
    matrix = np.array(rows) / scale[:, None]
    active = [0, 1, 2]
    while True:
        found = np.linalg.lstsq(matrix[:, active], np.ones(len(values)), rcond=None)[0]
        if (found >= 0).all():
            break
        active.pop(int(found.argmin()))
    costs = dict(zip(active, map(float, found), strict=True))
    return costs.get(0, 0.0), costs.get(1, 0.0), costs.get(2, 0.0)
