"""How far off the simulated replica is: a run of the load test beside the same requests in the model.

The run must be of one server and of the calibrated one; `check.toml` is a profile for it (no shared prefixes,
which the model does not know).
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from k8s.autoscaling.calibration import Calibration
from k8s.autoscaling.rehearsal import simulate
from k8s.autoscaling.replica import Request, StepTimes

TAIL_S: Final = 300.0


def compare(run: Path, calibration: Calibration) -> str:
    """A table in Markdown. Raises ValueError if the folder has no run with answers."""
    return beside(_measured(run / "records.jsonl"), calibration)


def beside(measured: Sequence[Request], calibration: Calibration) -> str:
    """The figures of requests that a server has answered, and of the same in the model."""
    rows = zip(_figures(measured), _figures(_modelled(measured, calibration)), strict=True)
    lines = ["| of one replica | measured | model | off by |", "|---|---:|---:|---:|"]
    for (name, real), (_, model) in rows:
        lines.append(f"| {name} | {real:.3f} | {model:.3f} | {model / real - 1:+.0%} |")
    return "\n".join(lines)


def distance(measured: Sequence[Request], calibration: Calibration) -> float:
    """How unlike the model's figures are: the sum of their logarithms' differences."""
    rows = zip(_figures(measured), _figures(_modelled(measured, calibration)), strict=True)
    return sum(abs(math.log(model / real)) for (_, real), (_, model) in rows)


def _modelled(measured: Sequence[Request], calibration: Calibration) -> list[Request]:
    planned = [Request(one.at_s, one.prompt, one.output) for one in measured]
    return simulate(planned, 1, StepTimes(calibration), measured[-1].at_s + TAIL_S)


def _measured(path: Path) -> list[Request]:
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as problem:
        raise ValueError(f"{path}: no records of a load test ({problem})") from problem
    found = [_request(one) for one in records if not one["error"] and one["first_s"] is not None]
    if not found:
        raise ValueError(f"{path}: no streamed request was answered")
    return sorted(found, key=lambda one: one.at_s)


def _request(record: dict[str, Any]) -> Request:
    request = Request(record["intended_s"], record["tokens_in"], record["tokens_out"])
    request.first_s, request.end_s = record["first_s"], record["end_s"]
    return request


def _figures(requests: Sequence[Request]) -> list[tuple[str, float]]:
    ttfts = sorted(one.ttft for one in requests if one.ttft is not None)
    tpots = sorted(one.tpot for one in requests if one.tpot is not None and one.output > 1)
    first = min(one.at_s for one in requests)
    seconds = max(one.end_s for one in requests if one.end_s is not None) - first
    return [
        ("TTFT p50, s", statistics.median(ttfts)),
        ("TTFT p90, s", ttfts[int(0.9 * (len(ttfts) - 1))]),
        ("TTFT p99, s", ttfts[int(0.99 * (len(ttfts) - 1))]),
        ("TPOT p50, s", statistics.median(tpots)),
        ("TPOT p90, s", tpots[int(0.9 * (len(tpots) - 1))]),
        ("tokens/s out", sum(one.output for one in requests) / seconds),
    ]
