"""What a metric asks for: from the values of the pods to a number of replicas.

The rules are those of the controller of HorizontalPodAutoscaler v2 (kube-controller-manager, replica
calculator). Values and targets are whole thousandths, as the metrics APIs deliver them; CPU targets are
per cent of the request. No clock: the caller says what time it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

TOLERANCE: Final = 0.1
CPU_INITIALISATION_S: Final = 300.0
READINESS_DELAY_S: Final = 30.0

Values = Mapping[str, int]


class NoMetric(Exception):
    """The metric has no value: it is left out, and nothing may be scaled down while it is."""


class Phase(Enum):
    PENDING = "pending"  # scheduled, pulled, initialised
    STARTING = "starting"  # its container runs and is not ready
    READY = "ready"
    TERMINATING = "terminating"


@dataclass(frozen=True)
class Pod:
    """`started_s`: when it was scheduled; `changed_s`: when its readiness last changed."""

    name: str
    phase: Phase
    started_s: float = 0.0
    changed_s: float = 0.0

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY


@dataclass(frozen=True)
class CpuSample:
    """Thousandths of a core, the mean of the `window_s` seconds before `at_s`."""

    milli: int
    at_s: float
    window_s: float


@dataclass(frozen=True)
class Tolerance:
    """How far a ratio may be from 1 without any scaling."""

    up: float = TOLERANCE
    down: float = TOLERANCE

    def covers(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True)
class _Groups:
    counted: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def from_pods(values: Values, target: int, pods: Sequence[Pod], current: int, within: Tolerance) -> int:
    """Replicas by a metric of type Pods with an AverageValue. Raises NoMetric without any value."""
    groups = _grouped(pods, values, lambda _: False)
    counted = {name: value for name, value in values.items() if name not in groups.ignored | groups.unready}
    if not counted:
        raise NoMetric("no pod has a value")

    def ratio(found: Values) -> float:
        return (sum(found.values()) // len(found)) / target

    return _settled(counted, ratio, groups, current, within, filler=lambda _: target)


def from_cpu(
    samples: Mapping[str, CpuSample],
    request: int,
    target_percent: int,
    pods: Sequence[Pod],
    current: int,
    within: Tolerance,
    now_s: float,
) -> int:
    """Replicas by CPU utilisation; `request` is that of one pod, in thousandths of a core.

    A pod that is starting has its CPU ignored: loading a model is no load. Raises NoMetric without any value.
    """
    values = {name: sample.milli for name, sample in samples.items()}
    groups = _grouped(pods, values, lambda pod: _cpu_is_unready(pod, samples[pod.name], now_s))
    counted = {name: value for name, value in values.items() if name not in groups.ignored | groups.unready}
    if not counted:
        raise NoMetric("no ready pod has a CPU sample")

    def ratio(found: Values) -> float:
        return (sum(found.values()) * 100 // (request * len(found))) / target_percent

    fallback = request * max(100, target_percent) // 100
    return _settled(counted, ratio, groups, current, within, filler=lambda _: fallback)


def from_total(total: int, average_target: int, current: int, within: Tolerance) -> int:
    """Replicas by an External or Object metric with an AverageValue, as KEDA's are."""
    if within.covers(total / (average_target * current)):
        return current
    return math.ceil(total / average_target)


def from_value(value: int, target: int, pods: Sequence[Pod], current: int, within: Tolerance) -> int:
    """Replicas by an External or Object metric with a Value: the ratio times the pods that are ready."""
    ratio = value / target
    if current == 0:
        return math.ceil(ratio)
    if within.covers(ratio):
        return current
    return math.ceil(ratio * sum(pod.ready for pod in pods))


def _grouped(pods: Sequence[Pod], values: Values, cpu_is_unready: Callable[[Pod], bool]) -> _Groups:
    ignored = {pod.name for pod in pods if pod.phase is Phase.TERMINATING}
    unready = {pod.name for pod in pods if pod.phase is Phase.PENDING}
    rest = [pod for pod in pods if pod.name not in ignored | unready]
    missing = {pod.name for pod in rest if pod.name not in values}
    unready |= {pod.name for pod in rest if pod.name not in missing and cpu_is_unready(pod)}
    counted = len(rest) - len(missing) - len(unready & {pod.name for pod in rest})
    return _Groups(counted, frozenset(unready), frozenset(missing), frozenset(ignored))


def _cpu_is_unready(pod: Pod, sample: CpuSample, now_s: float) -> bool:
    if pod.started_s + CPU_INITIALISATION_S > now_s:
        return not pod.ready or sample.at_s < pod.changed_s + sample.window_s
    return not pod.ready and pod.started_s + READINESS_DELAY_S > pod.changed_s


def _settled(
    values: Values,
    ratio_of: Callable[[Values], float],
    groups: _Groups,
    current: int,
    within: Tolerance,
    filler: Callable[[str], int],
) -> int:
    """Pods without a value count against the change: at the target if shrinking, idle if growing."""
    ratio = ratio_of(values)
    grows_with_unready = bool(groups.unready) and ratio > 1.0
    if not grows_with_unready and not groups.missing:
        return current if within.covers(ratio) else math.ceil(ratio * groups.counted)
    filled = dict(values)
    filled |= {name: filler(name) if ratio < 1.0 else 0 for name in groups.missing}
    if grows_with_unready:
        filled |= dict.fromkeys(groups.unready, 0)
    cautious = ratio_of(filled)
    if within.covers(cautious) or (ratio - 1.0) * (cautious - 1.0) < 0:
        return current
    wanted = math.ceil(cautious * len(filled))
    turned = (cautious < 1.0 and wanted > current) or (cautious > 1.0 and wanted < current)
    return current if turned else wanted
