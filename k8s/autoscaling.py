"""Replicas and autoscaling targets of the chart, computed from a load test of one replica.

Standard output is a values file for helm; a comment above each value says where it comes from.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

EXAMPLES: Final = """\
examples:
  make load-sweep PROFILE=chat OUT=runs/one       # first, against one replica
  python -m k8s.autoscaling runs/one/sweep.json --rate 9 > scaling.yaml
  python -m k8s.autoscaling runs/one/sweep.json --rate 9 --min-rate 3 --mode keda > scaling.yaml
  python -m k8s.autoscaling runs/load/result.json --rate 9 --mode none
  helm upgrade --install halimede k8s/chart -f scaling.yaml

A sweep's rate is the highest that met the SLO. A single run must have met its SLO; its own rate is taken.
docs/operate.md explains the formula and the targets.

exit codes: 0 done, 2 an option or the report is wrong
"""
MODES: Final = ("hpa", "keda", "none")
AT_LEAST: Final = 2  # one may be on the node that fails
AT_MOST: Final = 1000  # what the chart takes
FULL: Final = 0.8  # the chart's default for kvCacheUsage


class BadReport(Exception):
    """The report is unreadable or lacks what the plan needs; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value of a report, with its place."""

    file: Path
    value: Any
    path: str = ""

    def has(self, name: str) -> bool:
        return isinstance(self.value, dict) and name in self.value

    def at(self, name: str) -> Field:
        if not self.has(name):
            raise self.wrong(f"an object with the field {name}")
        return Field(self.file, self.value[name], f"{self.path}.{name}".lstrip("."))

    def items(self) -> list[Field]:
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [Field(self.file, one, f"{self.path}[{n}]") for n, one in enumerate(self.value)]

    def pair(self) -> tuple[float, float]:
        if len(numbers := [one.number() for one in self.items()]) != 2:
            raise self.wrong("two numbers")
        return numbers[0], numbers[1]

    def number(self) -> float:
        number = self.value if isinstance(self.value, int | float) else -1
        if isinstance(self.value, bool) or not 0 <= number < math.inf:
            raise self.wrong("a finite number of at least 0")
        return float(number)

    def wrong(self, must: str) -> BadReport:
        return BadReport(
            f"{self.file}: {self.path or 'the report'} is {json.dumps(self.value)[:60]}, must be {must}"
        )


@dataclass(frozen=True, slots=True)
class Run:
    """Means of the measured window: requests in a slot or in the queue, and the share of KV cache in use."""

    rate_per_s: float
    in_flight: float
    kv_usage: float


@dataclass(frozen=True, slots=True)
class Replica:
    """What one replica did in the load test. `runs`, by rising rate, met the SLO; the last has the highest
    rate.
    """

    runs: tuple[Run, ...]
    ttft_limit_s: float | None
    notes: tuple[str, ...]

    @property
    def rate_per_s(self) -> float:
        return self.runs[-1].rate_per_s

    def in_flight_at(self, rate_per_s: float) -> float:
        """Requests in flight, interpolated between two runs; without load there are none."""
        for before, after in pairwise((Run(0, 0, 0), *self.runs)):
            if rate_per_s <= after.rate_per_s:
                share = (rate_per_s - before.rate_per_s) / (after.rate_per_s - before.rate_per_s)
                return before.in_flight + share * (after.in_flight - before.in_flight)
        raise ValueError(f"{rate_per_s}/s: must be at most {self.rate_per_s}")


@dataclass(frozen=True, slots=True)
class Demand:
    """The options. Rates are requests/s of the whole service; `growth` and `headroom` are shares."""

    rate_per_s: float
    min_rate_per_s: float | None
    growth: float
    headroom: float
    spare: int
    mode: str


def read(file: Path) -> Replica:
    """Reads the result.json of a run or the sweep.json of a sweep. Raises BadReport."""
    try:
        report = Field(file, json.loads(file.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise BadReport(f"{file}: {error}; give the sweep.json or result.json of a load test") from error
    results, notes = _of_sweep(report) if report.has("rungs") else _of_run(report)
    if not results[-1][0]:
        raise results[-1][1].at("offered_per_s").wrong("above 0")
    notes += [f"Doubt: {one.value}" for one in results[-1][1].at("doubts").items()]
    machine = report.at("machine")
    notes.append(f"Measured on {machine.at('cores').value} cores of {machine.at('cpu').value}.")
    runs = tuple(_run(rate, result) for rate, result in results)
    return Replica(runs, _ttft_limit(report.at("profile")), tuple(notes))


def _of_sweep(report: Field) -> tuple[list[tuple[float, Field]], list[str]]:
    highest = report.at("highest_rate_per_s")
    if highest.value is None:
        raise highest.wrong("a rate that meets the SLO: sweep again from a lower --start")
    rungs = [(one.at("rate_per_s").number(), one.at("result")) for one in report.at("rungs").items()]
    met = sorted((one for one in rungs if one[0] <= highest.number()), key=lambda one: one[0])
    if not met or met[-1][0] != highest.number():
        raise highest.wrong("the rate of one of the rungs")
    no_miss = report.at("lowest_miss_per_s").value is None
    return met, ["No rate missed the SLO: a replica may serve more. Sweep to a higher --max."] * no_miss


def _of_run(report: Field) -> tuple[list[tuple[float, Field]], list[str]]:
    for verdict in report.at("slo").items():
        if verdict.at("met").value is not True:
            missed = f"{verdict.at('name').value} missed its limit"
            raise verdict.at("met").wrong(f"true: {missed}; give a run that meets its SLO, or a sweep")
    note = "One run says that its rate meets the SLO. A sweep says which rate is the highest."
    return [(report.at("offered_per_s").number(), report)], [note]


def _run(rate_per_s: float, result: Field) -> Run:
    in_flight = _mean(result, "running") + _mean(result, "waiting")
    return Run(rate_per_s, in_flight, _mean(result, "kv_usage"))


def _mean(result: Field, name: str) -> float:
    """The mean of a gauge in the measured window. Without readings, the load test did not read the
    metrics.
    """
    gauges = result.at("gauges")
    if not gauges.has(name):
        raise gauges.wrong(f"an object with the field {name}: give the load test --metrics-url")
    start_s, end_s = result.at("window_s").pair()
    readings = [one.pair() for one in gauges.at(name).items()]
    inside = [value for at_s, value in readings if start_s <= at_s <= end_s]
    if not inside:
        raise gauges.at(name).wrong(f"readings between {start_s:g} and {end_s:g} s")
    return math.fsum(inside) / len(inside)


def _ttft_limit(profile: Field) -> float | None:
    names = ("ttft_p95_s", "ttft_p99_s", "ttft_max_s", "request_ttft_s", "ttft_p90_s")
    limits = profile.at("slo") if profile.has("slo") else profile
    return next((limits.at(name).number() for name in names if limits.has(name)), None)


def replicas(rate_per_s: float, planned_per_s: float, plan: Demand) -> int:
    """The replicas for `rate_per_s` and its growth at `planned_per_s` each, and the spare ones."""
    return math.ceil(rate_per_s * (1 + plan.growth) / planned_per_s) + plan.spare


def values(replica: Replica, plan: Demand, source: str) -> str:
    """The values file. Raises ValueError where the service needs more replicas than the chart takes."""
    planned_per_s = replica.rate_per_s * plan.headroom
    most = max(AT_LEAST, replicas(plan.rate_per_s, planned_per_s, plan))
    if most > AT_MOST:
        raise ValueError(f"--rate {plan.rate_per_s:g}: needs {most} replicas, the chart takes {AT_MOST}")
    formula = (
        f"{{}}/s × {1 + plan.growth:g} growth ÷ ({replica.rate_per_s:.3g}/s of a replica within the SLO"
        f" × {plan.headroom:g} headroom), rounded up, + {plan.spare} spare"
    )
    lines = [f"# From {source}.", *(f"# {note}" for note in replica.notes)]
    if plan.mode == "none":
        reason = formula.format(f"{plan.rate_per_s:g}")
        return "\n".join([*lines, f"# {reason}", f"replicas: {most}", "autoscaling:", "  mode: none", ""])
    least, why = AT_LEAST, "no --min-rate: two, so that one may fail"
    if plan.min_rate_per_s is not None:
        least = min(most, max(AT_LEAST, replicas(plan.min_rate_per_s, planned_per_s, plan)))
        why = formula.format(f"{plan.min_rate_per_s:g}") + f", at least {AT_LEAST}"
    lines += ["autoscaling:", f"  mode: {plan.mode}"]
    lines += [f"  # {why}", f"  minReplicas: {least}"]
    lines += [f"  # {formula.format(f'{plan.rate_per_s:g}')}", f"  maxReplicas: {most}"]
    return "\n".join([*lines, "  targets:", *_targets(replica, planned_per_s), ""])


def _targets(replica: Replica, planned_per_s: float) -> list[str]:
    in_flight = replica.in_flight_at(planned_per_s)
    lines = [
        f"    # half of the {in_flight:.3g} requests in flight at {planned_per_s:.3g}/s, rate × headroom",
        f"    inFlightPerReplica: {_number(in_flight / 2, 10_000)}",
    ]
    limit_s, used = replica.ttft_limit_s, replica.runs[-1].kv_usage
    if limit_s is None:
        lines += ["    # the profile's SLO has no limit on TTFT", "    ttftP95Seconds: null"]
    else:
        lines += [
            f"    # so many wait for half of the SLO's TTFT ({limit_s:g} s) at {planned_per_s:.3g}/s",
            f"    waitingPerReplica: {_number(planned_per_s * limit_s / 2, 1000)}",
            "    # the SLO's limit on TTFT",
            f"    ttftP95Seconds: {_number(limit_s, 600)}",
        ]
    if used < FULL:
        lines += [
            f"    # the chart's default; {used:.0%} where the SLO just holds",
            f"    kvCacheUsage: {FULL}",
        ]
    else:
        lines += [
            f"    # {used:.0%} where the SLO still holds: no sign of overload",
            "    kvCacheUsage: null",
        ]
    return lines


def _number(value: float, most: float) -> str:
    """The number with one decimal below 10, within what the chart accepts."""
    return f"{min(most, max(0.1, round(value, 1 if value < 10 else 0))):g}"


def main(arguments: Sequence[str]) -> int:
    found = _parser().parse_args(arguments)
    plan = Demand(found.rate, found.min_rate, found.growth, found.headroom, found.spare, found.mode)
    try:
        if plan.min_rate_per_s is not None and plan.min_rate_per_s > plan.rate_per_s:
            raise ValueError(
                f"--min-rate {plan.min_rate_per_s:g}: must be at most --rate {plan.rate_per_s:g}"
            )
        print(values(read(found.report), plan, str(found.report)), end="")
    except (BadReport, ValueError) as problem:
        print(f"k8s.autoscaling: {problem}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.autoscaling",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    rate = _within(0.001, 1_000_000)
    add("report", type=Path, metavar="REPORT", help="sweep.json or result.json of one replica")
    add("--rate", type=rate, required=True, metavar="R", help="requests/s of the busiest minute")
    add("--min-rate", type=rate, metavar="R", help="requests/s that the fewest replicas must serve")
    add(
        "--growth",
        type=_within(0, 100),
        default=0.2,
        metavar="X",
        help="growth of the rates until new hardware arrives; 0.2",
    )
    add(
        "--headroom",
        type=_within(0.05, 1),
        default=0.7,
        metavar="X",
        help="share of a replica's rate that is planned; 0.7",
    )
    add(
        "--spare", type=int, choices=range(11), default=1, metavar="N", help="replicas that may be missing; 1"
    )
    add("--mode", choices=MODES, default=MODES[0], help="none: a fixed number; hpa")
    return parser


def _within(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text}: must be a number from {least:g} to {most:g}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
