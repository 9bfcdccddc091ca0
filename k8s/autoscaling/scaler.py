"""What scales a Deployment: metrics with their queries, limits, and KEDA's part where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from k8s.autoscaling.hpa import Controller, Limits
from k8s.autoscaling.keda import Activity, Operator
from k8s.autoscaling.pods import (
    CpuSample,
    NoMetric,
    Pod,
    Tolerance,
    from_cpu,
    from_pods,
    from_total,
    from_value,
)


class Kind(Enum):
    PODS = "Pods"  # a value for each pod, target: their average
    AVERAGE = "AverageValue"  # one value, target: a replica's share
    VALUE = "Value"  # one value, target: itself
    CPU = "cpu"  # cores of each pod, target: per cent of the request


@dataclass(frozen=True)
class Metric:
    """`target` and `activation` in the query's unit; per cent for CPU."""

    kind: Kind
    query: str
    target: float
    activation: float = 0.0
    window_s: float = 30.0


@dataclass(frozen=True)
class Scaler:
    """`activity` is a ScaledObject's; `cpu_request` in cores."""

    name: str
    metrics: tuple[Metric, ...]
    limits: Limits
    activity: Activity | None = None
    cpu_request: float = 2.0
    tolerance: Tolerance = field(default_factory=Tolerance)


class Source(Protocol):
    """Answers queries about a moment; Prometheus does."""

    def by_pod(self, query: str, at_s: float) -> dict[str, float]: ...

    def scalar(self, query: str, at_s: float) -> float | None: ...


class Autoscaler:
    """A scaler with its memory. `sync` is one round of the controllers."""

    def __init__(self, scaler: Scaler) -> None:
        self.scaler = scaler
        self._controller = Controller(scaler.limits)
        self._operator = Operator(scaler.activity) if scaler.activity else None

    def sync(self, now_s: float, pods: Sequence[Pod], current: int, source: Source) -> int:
        """The replicas to run."""
        if self._operator:
            polled = self._operator.poll(now_s, current, *self._activity(now_s, source))
            if polled != current:
                return polled
        proposals = [self._proposal(metric, now_s, pods, current, source) for metric in self.scaler.metrics]
        return self._controller.decide(now_s, current, proposals)

    def _activity(self, now_s: float, source: Source) -> tuple[list[int], list[int]]:
        metrics = self.scaler.metrics
        values = [milli(source.scalar(metric.query, now_s) or 0.0) for metric in metrics]
        return values, [milli(metric.activation) for metric in metrics]

    def _proposal(
        self, metric: Metric, now_s: float, pods: Sequence[Pod], current: int, source: Source
    ) -> int | None:
        try:
            if metric.kind in {Kind.PODS, Kind.CPU}:
                return self._per_pod(metric, now_s, pods, current, source.by_pod(metric.query, now_s))
            return self._overall(metric, pods, current, source.scalar(metric.query, now_s))
        except NoMetric:
            return None

    def _per_pod(
        self, metric: Metric, now_s: float, pods: Sequence[Pod], current: int, found: dict[str, float]
    ) -> int:
        within = self.scaler.tolerance
        known = {pod.name for pod in pods}
        values = {name: milli(value) for name, value in found.items() if name in known}
        if metric.kind is Kind.PODS:
            return from_pods(values, milli(metric.target), pods, current, within)
        samples = {name: CpuSample(value, now_s, metric.window_s) for name, value in values.items()}
        request = milli(self.scaler.cpu_request)
        return from_cpu(samples, request, round(metric.target), pods, current, within, now_s)

    def _overall(self, metric: Metric, pods: Sequence[Pod], current: int, value: float | None) -> int:
        if value is None:
            raise NoMetric(metric.query)
        within = self.scaler.tolerance
        if metric.kind is Kind.AVERAGE:
            return from_total(milli(value), milli(metric.target), current, within)
        return from_value(milli(value), milli(metric.target), pods, current, within)


def milli(value: float) -> int:
    return round(value * 1000)
