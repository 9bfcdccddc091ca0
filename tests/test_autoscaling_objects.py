"""An HPA and a ScaledObject read as what scales."""

from __future__ import annotations

from typing import Any

import pytest

from k8s.autoscaling import chart, strategies
from k8s.autoscaling.behavior import DEFAULT_DOWN, Policy, Unit
from k8s.autoscaling.objects import Unreadable, quantity, scaler
from k8s.autoscaling.scaler import Kind, Metric

BEHAVIOR: dict[str, Any] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 30,
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}],
    }
}


def hpa(metric: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = {"minReplicas": 2, "maxReplicas": 8, "behavior": BEHAVIOR, "metrics": [metric]} | more
    return {"kind": "HorizontalPodAutoscaler", "spec": spec}


def pods(name: str, target: str) -> dict[str, Any]:
    average = {"type": "AverageValue", "averageValue": target}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": average}}


def test_an_hpa_on_pods() -> None:
    found = scaler(hpa(pods("halimede_num_requests_waiting", "2500m")), chart.queries([]), 2.0)
    assert found.metrics == (Metric(Kind.PODS, strategies.gauge("num_requests_waiting"), 2.5),)
    assert (found.limits.minimum, found.limits.maximum) == (2, 8)
    assert found.limits.up.policies == (Policy(Unit.PODS, 2, 60),)
    assert found.limits.up.stabilisation_s == 30
    assert found.limits.down == DEFAULT_DOWN


def test_an_hpa_on_cpu() -> None:
    target = {"type": "Utilization", "averageUtilization": 70}
    found = scaler(
        hpa({"type": "Resource", "resource": {"name": "cpu", "target": target}}), {"cpu": "q"}, 2.0
    )
    assert found.metrics == (Metric(Kind.CPU, "q", 70),)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (hpa(pods("unheard_of", "1")), "unheard_of: no query"),
        (hpa(pods("cpu", "1"), behavior=None), "behavior: missing"),
        (
            hpa({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization"}}}),
            "memory",
        ),
        ({"kind": "Deployment"}, "kind Deployment"),
    ],
)
def test_what_is_not_modelled_is_refused(found: dict[str, Any], problem: str) -> None:
    with pytest.raises(Unreadable, match=problem):
        scaler(found, {"cpu": "q"}, 2.0)


def test_a_scaled_object() -> None:
    data = {
        "query": "sum(q)",
        "threshold": "6",
        "activationThreshold": "0.5",
        "serverAddress": "http://p:9090",
    }
    spec = {
        "minReplicaCount": 0,
        "maxReplicaCount": 8,
        "pollingInterval": 15,
        "triggers": [{"type": "prometheus", "metadata": data}],
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": BEHAVIOR}},
    }
    found = scaler({"kind": "ScaledObject", "spec": spec}, {}, 2.0)
    assert found.metrics == (Metric(Kind.AVERAGE, "sum(q)", 6, 0.5),)
    assert found.activity is not None
    assert (found.activity.minimum, found.activity.polling_s, found.activity.cooldown_s) == (0, 15, 300)
    assert found.limits.minimum == 1, "the HPA that KEDA makes has at least one"


def test_adapter_rules_name_the_query() -> None:
    rule = """
rules:
- seriesQuery: 'halimede_num_requests_running{namespace!=""}'
  name: {as: halimede_requests_in_flight}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
"""
    found = chart.queries([{"kind": "ConfigMap", "data": {"config.yaml": rule}}])
    query = 'sum(halimede_num_requests_running{namespace="halimede"}) by (pod)'
    assert found["halimede_requests_in_flight"] == query


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("4", 4), ("2k", 2000), ("1Ki", 1024), (0.7, 0.7)]
)
def test_quantities(text: str | float, value: float) -> None:
    assert quantity(text) == value


def test_signals_are_named_on_the_command_line() -> None:
    found = strategies.parse("waiting:1+ttft:2.5", 2.0)
    assert [(one.kind, one.target) for one in found.metrics] == [(Kind.PODS, 1), (Kind.VALUE, 2.5)]
    assert strategies.parse("fixed:3", 2.0).limits.maximum == 3
    for wrong in ("gpu:3", "kv:0", "kv", "fixed:0", "ttft:x"):
        with pytest.raises(ValueError, match="must be SIGNAL:TARGET"):
            strategies.parse(wrong, 2.0)
