"""The scalers that the chart's defaults are compared with, and candidates for these defaults.

They get the limits and the behaviour of the chart's HPA, so that what differs is the signal; without the
chart, those of `LIMITS`. CPU is read from Prometheus, as often as our own metrics.
"""

from __future__ import annotations

import re
from typing import Final

from k8s.autoscaling.behavior import Policy, Rules, Select, Unit
from k8s.autoscaling.hpa import Limits
from k8s.autoscaling.scaler import Kind, Metric, Scaler

MINIMUM: Final = 1
MAXIMUM: Final = 10
UP: Final = Rules(0, (Policy(Unit.PODS, 4, 15), Policy(Unit.PERCENT, 100, 15)))
DOWN: Final = Rules(300, (Policy(Unit.PODS, 1, 60),), Select.MAX)
LIMITS: Final = Limits(MINIMUM, MAXIMUM, UP, DOWN)
NAMESPACE: Final = 'namespace="halimede"'


def gauge(name: str) -> str:
    """A gauge of each pod."""
    return f"sum by (pod) (halimede_{name}{{{NAMESPACE}}})"


IN_FLIGHT: Final = f"{gauge('num_requests_running')} + {gauge('num_requests_waiting')}"
# A minute's mean: arrivals are random, and what is in flight jumps with them.
STEADY: Final = (
    f"sum by (pod) (avg_over_time(halimede_num_requests_running{{{NAMESPACE}}}[1m])) + "
    f"sum by (pod) (avg_over_time(halimede_num_requests_waiting{{{NAMESPACE}}}[1m]))"
)
TTFT: Final = (
    "histogram_quantile(0.95, sum by (le) "
    f"(rate(halimede_time_to_first_token_seconds_bucket{{{NAMESPACE}}}[2m])))"
)
CPU: Final = f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{NAMESPACE}}}[30s]))"


_SIGNALS: Final = {
    "cpu": (Kind.CPU, CPU),
    "waiting": (Kind.PODS, gauge("num_requests_waiting")),
    "in-flight": (Kind.PODS, IN_FLIGHT),
    "steady": (Kind.PODS, STEADY),
    "kv": (Kind.PODS, gauge("kv_cache_usage_perc")),
    "ttft": (Kind.VALUE, TTFT),
}


def parse(text: str, cores: float, limits: Limits = LIMITS) -> Scaler:
    """`SIGNAL:TARGET`, several with +, or `fixed:REPLICAS`; `cores` a pod requests. Raises ValueError."""
    if found := re.fullmatch(r"fixed:([1-9]\d*)", text):
        return Scaler(text, (), Limits(int(found[1]), int(found[1])))
    return Scaler(text, tuple(map(_metric, text.split("+"))), limits, cpu_request=cores)


def _metric(text: str) -> Metric:
    signal, _, target = text.partition(":")
    if signal in _SIGNALS and re.fullmatch(r"\d+(\.\d+)?", target) and float(target):
        return Metric(*_SIGNALS[signal], float(target))
    raise ValueError(f"scaler {text!r}: must be SIGNAL:TARGET, of {', '.join(_SIGNALS)}, or fixed:REPLICAS")
