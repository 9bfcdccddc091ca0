"""Every rule finds the error it is for, planted into the rendered chart, and finds none in the chart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.check import rules
from k8s.check.bundle import Bundle, Object
from k8s.check.quantity import amount
from tests.k8s.charts import SCENARIOS, objects

Plant = Callable[[Any], object]
# What users of these scenarios make themselves, as their comments say.
EXTERNAL = frozenset(
    {
        ("PersistentVolumeClaim", "halimede-models"),
        ("Secret", "halimede-keys"),
        ("Secret", "halimede-tls"),
        ("Secret", "registry"),
        ("Secret", "s3-credentials"),
    }
)


def _container(pod: Object) -> Object:
    first: Object = pod["spec"]["template"]["spec"]["containers"][0]
    return first


def _set(path: str, value: object) -> Plant:
    """Put `value` where `path` leads, through keys and numbers."""

    def plant(one: Any) -> None:
        *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        for part in way:
            one = one[part]
        one[last] = value

    return plant


POD = "spec/template/spec"
TRITON = f"{POD}/containers/0"
BOTH = {"minAvailable": 1, "maxUnavailable": 1}
PLANTED: list[tuple[str, str, str, Plant]] = [
    ("cpu", "Deployment", "names-are-dns", _set("metadata/name", "x" * 64)),
    ("cpu", "Deployment", "names-are-dns", _set("metadata/name", "Halimede")),
    ("cpu", "ServiceAccount", "names-are-dns", _set("metadata/name", "a..b")),
    ("cpu", "Deployment", "labels-are-valid", _set("metadata/labels/x", "é")),
    ("cpu", "Deployment", "labels-are-valid", _set("metadata/labels/x", "x" * 64)),
    ("cpu", "Service", "service-selects-pods", _set("spec/selector/x", "y")),
    ("cpu", "Service", "service-port-is-open", _set("spec/ports/0/targetPort", "htpp")),
    ("cpu", "Service", "service-port-is-open", _set("spec/ports/0/targetPort", 9000)),
    ("cpu", "Service", "service-ports-are-valid", _set("spec/ports/0/port", 70000)),
    ("cpu", "Service", "service-ports-are-valid", lambda one: one["spec"]["ports"][0].pop("name")),
    # What admits Prometheus is left.
    (
        "cpu",
        "NetworkPolicy",
        "policy-admits-service-ports",
        lambda one: one["spec"].update(ingress=one["spec"]["ingress"][-1:]),
    ),
    ("cpu", "NetworkPolicy", "policy-names-open-ports", _set("spec/ingress/0/ports/0/port", "htpp")),
    ("cpu", "NetworkPolicy", "policy-selects-pods", _set("spec/podSelector/matchLabels/x", "y")),
    ("cpu", "Deployment", "ports-are-valid", _set(f"{TRITON}/ports/0/containerPort", 0)),
    ("cpu", "Deployment", "ports-are-valid", _set(f"{TRITON}/ports/0/name", "a-name-that-is-long")),
    ("cpu", "Deployment", "ports-are-valid", _set(f"{TRITON}/ports/0/containerPort", 8001)),
    ("cpu", "Deployment", "selector-fits-template", _set("spec/selector/matchLabels/x", "y")),
    ("gpu", "Deployment", "requests-are-within-limits", _set(f"{TRITON}/resources/requests/memory", "1Ti")),
    (
        "gpu",
        "Deployment",
        "requests-are-within-limits",
        _set(f"{TRITON}/resources/limits", {"nvidia.com/gpu": 2}),
    ),
    ("cpu", "Deployment", "servers-have-probes", lambda one: _container(one).pop("readinessProbe")),
    ("cpu", "Deployment", "servers-have-probes", lambda one: _container(one).pop("livenessProbe")),
    (
        "cpu",
        "Deployment",
        "liveness-spares-a-loading-server",
        lambda one: _container(one).pop("startupProbe"),
    ),
    (
        "cpu",
        "Deployment",
        "liveness-spares-a-loading-server",
        _set(f"{TRITON}/startupProbe/failureThreshold", 3),
    ),
    (
        "cpu",
        "Deployment",
        "liveness-asks-less-than-readiness",
        lambda one: _container(one).update(livenessProbe=_container(one)["readinessProbe"]),
    ),
    ("cpu", "Deployment", "drain-ends-before-the-kill", _set(f"{POD}/terminationGracePeriodSeconds", 30)),
    (
        "cpu",
        "Deployment",
        "drain-ends-before-the-kill",
        _set(f"{TRITON}/lifecycle/preStop", {"exec": {"command": ["sh", "-c", "sleep 600"]}}),
    ),
    ("cpu", "Deployment", "rollout-keeps-replicas", lambda one: one["spec"].pop("strategy")),
    ("cpu", "Deployment", "mounts-have-volumes", _set(f"{TRITON}/volumeMounts/0/name", "no")),
    ("cpu", "Deployment", "mounts-have-volumes", lambda one: one["spec"]["template"]["spec"].pop("volumes")),
    (
        "cpu",
        "Deployment",
        "volumes-are-mounted",
        lambda one: one["spec"]["template"]["spec"]["volumes"].append({"name": "idle", "emptyDir": {}}),
    ),
    ("cpu", "Deployment", "mount-paths-differ", _set(f"{TRITON}/volumeMounts/0/mountPath", "/tmp/")),
    ("cpu", "Deployment", "references-exist", _set(f"{POD}/serviceAccountName", "no")),
    ("cpu", "Deployment", "references-exist", _set(f"{TRITON}/envFrom", [{"secretRef": {"name": "no"}}])),
    (
        "cpu",
        "Deployment",
        "config-keys-exist",
        lambda one: _container(one)["env"].append(
            {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "halimede", "key": "no"}}}
        ),
    ),
    ("multi-model", "HorizontalPodAutoscaler", "bounds-are-in-order", _set("spec/minReplicas", 99)),
    ("keda", "ScaledObject", "bounds-are-in-order", _set("spec/maxReplicaCount", 0)),
    ("keda", "ScaledObject", "scaled-target-exists", _set("spec/scaleTargetRef/name", "no")),
    ("keda", "Deployment", "one-scaler-sets-replicas", _set("spec/replicas", 2)),
    ("cpu", "PodDisruptionBudget", "budget-has-one-field", lambda one: one["spec"].update(BOTH)),
    ("cpu", "PodDisruptionBudget", "budget-selects-pods", _set("spec/selector/matchLabels/x", "y")),
    ("cpu", "PodDisruptionBudget", "budget-lets-a-node-drain", _set("spec/maxUnavailable", 0)),
    ("monitoring", "PodMonitor", "monitor-finds-a-port", _set("spec/selector/matchLabels/x", "y")),
    ("monitoring", "PodMonitor", "monitor-finds-a-port", _set("spec/podMetricsEndpoints/0/port", "metric")),
    ("monitoring", "Deployment", "monitor-finds-a-port", lambda one: _container(one).pop("ports")),
]
# Planted by a second object instead of a changed one.
BY_AN_OBJECT = {"objects-are-unique", "monitor-finds-a-port-once"}


def _bundle(scenario: str | None) -> Bundle:
    return Bundle(tuple(copy.deepcopy(objects(scenario))), EXTERNAL)


def _found(bundle: Bundle) -> set[str]:
    return {problem.check for problem in rules.problems(bundle)}


@pytest.mark.parametrize("scenario", [None, *SCENARIOS])
def test_the_chart_breaks_no_rule(tools: object, scenario: str | None) -> None:
    assert [str(problem) for problem in rules.problems(_bundle(scenario))] == []


@pytest.mark.parametrize(("scenario", "kind", "rule", "plant"), PLANTED)
def test_a_planted_error_is_found(tools: object, scenario: str, kind: str, rule: str, plant: Plant) -> None:
    bundle = _bundle(scenario)
    plant(next(bundle.of(kind)))
    assert rule in _found(bundle)


@pytest.mark.parametrize("scenario", ["keda", "multi-model"])
def test_twice_the_same_object_and_two_autoscalers_are_found(tools: object, scenario: str) -> None:
    bundle = _bundle(scenario)
    scaler = next(bundle.of("ScaledObject", "HorizontalPodAutoscaler"))
    twice = Bundle((*bundle.objects, scaler), EXTERNAL)
    assert {"objects-are-unique", "one-scaler-sets-replicas"} <= _found(twice)


def test_a_monitor_of_services_is_checked_by_their_ports(tools: object) -> None:
    found = objects(None, "monitoring.scrape.kind=ServiceMonitor")
    assert [str(problem) for problem in rules.problems(Bundle(tuple(found), EXTERNAL))] == []
    without, twice = copy.deepcopy(found), copy.deepcopy(found)
    for service in (one for one in without if one["kind"] == "Service"):
        service["spec"]["ports"] = [p for p in service["spec"]["ports"] if p["name"] != "metrics"]
    assert "monitor-finds-a-port" in _found(Bundle(tuple(without), EXTERNAL))
    for service in (one for one in twice if one["kind"] == "Service"):
        ports = service["spec"]["ports"]
        if all(port["name"] != "metrics" for port in ports):
            ports.append({"name": "metrics", "port": 8002, "targetPort": "metrics"})
    assert "monitor-finds-a-port-once" in _found(Bundle(tuple(twice), EXTERNAL))


def test_every_rule_has_a_planted_error() -> None:
    names = {rule.__name__.replace("_", "-") for rule in rules.RULES}
    assert names == {rule for _, _, rule, _ in PLANTED} | BY_AN_OBJECT


def _leaves(one: object) -> Iterator[dict[str, Any]]:
    if isinstance(one, dict):
        if "configMap" in one or "secret" in one:
            yield one
        for part in one.values():
            yield from _leaves(part)
    elif isinstance(one, list):
        for part in one:
            yield from _leaves(part)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_any_reference_renamed_is_found(tools: object, scenario: str) -> None:
    count = sum(1 for one in objects(scenario) for _ in _leaves(one.get("spec")))
    assert count
    for number in range(count):
        bundle = _bundle(scenario)
        volume = [leaf for one in bundle.objects for leaf in _leaves(one.get("spec"))][number]
        field = "configMap" if "configMap" in volume else "secret"
        volume[field]["name" if field == "configMap" else "secretName"] = "renamed"
        assert "references-exist" in _found(bundle)


@given(st.integers(0, 10**6), st.sampled_from([("Ki", 1024), ("M", 10**6), ("Gi", 2**30), ("", 1)]))
def test_quantities_are_numbers_with_a_factor(number: int, unit: tuple[str, int]) -> None:
    assert amount(f"{number}{unit[0]}") == number * unit[1]
    assert amount(f"{number}m") * 1000 == number


@pytest.mark.parametrize("text", ["", "Gi", "2Gib", "1 Gi", "two"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        amount(text)
