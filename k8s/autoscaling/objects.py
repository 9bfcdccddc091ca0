"""Reads a HorizontalPodAutoscaler v2 or a KEDA ScaledObject as a scaler.

A metric of the custom or external metrics API is a name; `queries` has the PromQL of its adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from k8s.autoscaling.behavior import DEFAULT_DOWN, DEFAULT_UP, Policy, Rules, Select, Unit
from k8s.autoscaling.hpa import Limits
from k8s.autoscaling.keda import Activity
from k8s.autoscaling.scaler import Kind, Metric, Scaler

Queries = Mapping[str, str]
_SUFFIXES: Final = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class Unreadable(Exception):
    """The object has something that the rehearsal does not model; says where."""


def scaler(found: Mapping[str, Any], queries: Queries, cpu_request: float) -> Scaler:
    """Raises Unreadable."""
    kind = found.get("kind")
    if kind == "HorizontalPodAutoscaler":
        return _from_hpa(found["spec"], queries, cpu_request)
    if kind == "ScaledObject":
        return _from_scaled_object(found["spec"], cpu_request)
    raise Unreadable(f"kind {kind}: must be HorizontalPodAutoscaler or ScaledObject")


def quantity(text: str | float) -> float:
    """A Kubernetes quantity as a number."""
    text = str(text)
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * _SUFFIXES[suffix]
    return float(text)


def _from_hpa(spec: Mapping[str, Any], queries: Queries, cpu_request: float) -> Scaler:
    metrics = tuple(_metric(one, queries) for one in spec["metrics"])
    limits = _limits(int(spec.get("minReplicas", 1)), int(spec["maxReplicas"]), spec.get("behavior"))
    return Scaler("chart, HPA", metrics, limits, cpu_request=cpu_request)


def _from_scaled_object(spec: Mapping[str, Any], cpu_request: float) -> Scaler:
    least = int(spec.get("minReplicaCount", 0))
    behavior = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior")
    limits = _limits(max(1, least), int(spec.get("maxReplicaCount", 100)), behavior)
    idle = spec.get("idleReplicaCount")
    activity = Activity(
        least,
        float(spec.get("pollingInterval", 30)),
        float(spec.get("cooldownPeriod", 300)),
        None if idle is None else int(idle),
    )
    metrics = tuple(_trigger(one) for one in spec["triggers"])
    return Scaler("chart, KEDA", metrics, limits, activity, cpu_request)


def _limits(minimum: int, maximum: int, behavior: Mapping[str, Any] | None) -> Limits:
    if not behavior:
        raise Unreadable("behavior: missing; without it the controller follows other rules than these")
    up = _rules(behavior.get("scaleUp", {}), DEFAULT_UP)
    return Limits(minimum, maximum, up, _rules(behavior.get("scaleDown", {}), DEFAULT_DOWN))


def _rules(found: Mapping[str, Any], default: Rules) -> Rules:
    policies = tuple(
        Policy(Unit(one["type"]), int(one["value"]), int(one["periodSeconds"]))
        for one in found.get("policies") or []
    )
    window = int(found.get("stabilizationWindowSeconds", default.stabilisation_s))
    return Rules(window, policies or default.policies, Select(found.get("selectPolicy", "Max")))


def _metric(found: Mapping[str, Any], queries: Queries) -> Metric:
    kind = found["type"]
    if kind in {"Resource", "ContainerResource"}:
        part = found["resource" if kind == "Resource" else "containerResource"]
        if part["name"] != "cpu" or part["target"]["type"] != "Utilization":
            raise Unreadable(f"metric {part['name']}: of resources only the utilisation of cpu is modelled")
        return Metric(Kind.CPU, _query(queries, "cpu"), part["target"]["averageUtilization"])
    if kind not in {"Pods", "External", "Object"}:
        raise Unreadable(f"metric type {kind}: must be Resource, ContainerResource, Pods, External or Object")
    part = found[kind.lower()]
    query, target = _query(queries, part["metric"]["name"]), part["target"]
    if kind == "Pods":
        return Metric(Kind.PODS, query, quantity(target["averageValue"]))
    if target["type"] == "Value":
        return Metric(Kind.VALUE, query, quantity(target["value"]))
    return Metric(Kind.AVERAGE, query, quantity(target["averageValue"]))


def _trigger(found: Mapping[str, Any]) -> Metric:
    if found["type"] != "prometheus":
        raise Unreadable(f"trigger {found['type']}: only prometheus is modelled")
    data = found["metadata"]
    kind = Kind(found.get("metricType", "AverageValue"))
    activation = float(data.get("activationThreshold", 0))
    return Metric(kind, data["query"], float(data["threshold"]), activation)


def _query(queries: Queries, name: str) -> str:
    if name not in queries:
        raise Unreadable(f"metric {name}: no query is known for it; known are {', '.join(sorted(queries))}")
    return queries[name]
