"""Autoscalers and disruption budgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from k8s.check.bundle import Bundle, Object, where

Found = Iterator[tuple[str, str]]
BOUNDS = {
    "HorizontalPodAutoscaler": ("minReplicas", "maxReplicas", 1),
    "ScaledObject": ("minReplicaCount", "maxReplicaCount", 0),
}


def bounds_are_in_order(bundle: Bundle) -> Found:
    """Minimum at most maximum."""
    for one in bundle.of(*BOUNDS):
        low, high, default = BOUNDS[one["kind"]]
        least, most = one["spec"].get(low, default), one["spec"].get(high, 100)
        if least > most:
            yield where(one), f"{low} {least} is above {high} {most}"


def scaled_target_exists(bundle: Bundle) -> Found:
    """What is scaled is in the bundle."""
    there = {(one["kind"], one["metadata"]["name"]) for one in bundle.objects}
    for one in bundle.of(*BOUNDS):
        if _target(one) not in there:
            yield where(one), f"scales {'/'.join(_target(one))}, which is not there"


def one_scaler_sets_replicas(bundle: Bundle) -> Found:
    """Two autoscalers, or an autoscaler and `replicas`, undo each other's work."""
    scaled = Counter(_target(one) for one in bundle.of(*BOUNDS))
    for one in bundle.objects:
        scalers = scaled[one["kind"], one["metadata"]["name"]]
        if scalers > 1:
            yield where(one), f"{scalers} autoscalers scale it"
        if scalers and "replicas" in one.get("spec", {}):
            yield where(one), "replicas is set, and an autoscaler sets it"


def budget_has_one_field(bundle: Bundle) -> Found:
    """The API server refuses both fields; neither protects nothing."""
    for one in bundle.of("PodDisruptionBudget"):
        if len({"minAvailable", "maxUnavailable"} & one["spec"].keys()) != 1:
            yield where(one), "give one of minAvailable and maxUnavailable"


def budget_selects_pods(bundle: Bundle) -> Found:
    """A budget for no pods protects nothing."""
    for one in bundle.of("PodDisruptionBudget"):
        if not bundle.selected(one["spec"].get("selector", {}).get("matchLabels", {})):
            yield where(one), "its selector fits no pod"


def budget_lets_a_node_drain(bundle: Bundle) -> Found:
    """A budget that allows no disruption at all blocks every drain of a node."""
    for one in bundle.of("PodDisruptionBudget"):
        spec = one["spec"]
        pods = bundle.selected(spec.get("selector", {}).get("matchLabels", {}))
        replicas = [pod.owner["spec"]["replicas"] for pod in pods if "replicas" in pod.owner["spec"]]
        least = spec.get("minAvailable")
        never = spec.get("maxUnavailable") in (0, "0%") or least == "100%"
        if never or (isinstance(least, int) and replicas and least >= max(replicas)):
            yield where(one), "allows no pod to be evicted: a drain of a node never ends"


def _target(one: Object) -> tuple[str, str]:
    target = one["spec"]["scaleTargetRef"]
    return target.get("kind", "Deployment"), target["name"]


RULES = (
    bounds_are_in_order,
    scaled_target_exists,
    one_scaler_sets_replicas,
    budget_has_one_field,
    budget_selects_pods,
    budget_lets_a_node_drain,
)
