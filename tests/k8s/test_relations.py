"""Every rule finds the error it is for, planted into the rendered chart, and finds none in the chart."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.k8s import relations
from tests.k8s.charts import SCENARIOS, objects
from tests.k8s.relations import Bundle, Object, problems
from tests.paths import ROOT

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
    ("cpu", "Deployment", "must be a DNS name", _set("metadata/name", "x" * 64)),
    ("cpu", "Deployment", "must be a DNS name", _set("metadata/name", "Halimede")),
    ("cpu", "ServiceAccount", "must be a DNS name", _set("metadata/name", "a..b")),
    ("cpu", "Deployment", "is no string of 63 letters", _set("metadata/labels/x", "é")),
    ("cpu", "Deployment", "is no string of 63 letters", _set("metadata/labels/x", "x" * 64)),
    ("cpu", "Service", "no pod has the labels", _set("spec/selector/x", "y")),
    ("cpu", "Service", "opens no port htpp", _set("spec/ports/0/targetPort", "htpp")),
    ("cpu", "Service", "opens no port 9000", _set("spec/ports/0/targetPort", 9000)),
    # What admits Prometheus is left.
    (
        "cpu",
        "NetworkPolicy",
        "no NetworkPolicy admits port",
        lambda one: one["spec"].update(ingress=one["spec"]["ingress"][-1:]),
    ),
    (
        "cpu",
        "NetworkPolicy",
        "no NetworkPolicy admits port http",
        lambda one: [
            port.update(port="htpp")
            for rule in one["spec"]["ingress"]
            for port in rule["ports"]
            if port["port"] == "http"
        ],
    ),
    ("cpu", "NetworkPolicy", "protects no pod", _set("spec/podSelector/matchLabels/x", "y")),
    ("cpu", "Deployment", "does not fit the labels of its pods", _set("spec/selector/matchLabels/x", "y")),
    ("cpu", "Deployment", "provides ServiceAccount no", _set(f"{POD}/serviceAccountName", "no")),
    ("cpu", "Deployment", "provides Secret no", _set(f"{TRITON}/envFrom", [{"secretRef": {"name": "no"}}])),
    (
        "cpu",
        "Deployment",
        "has no key no",
        lambda one: _container(one)["env"].append(
            {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "halimede", "key": "no"}}}
        ),
    ),
    ("multi-model", "HorizontalPodAutoscaler", "is above at most", _set("spec/minReplicas", 99)),
    ("keda", "ScaledObject", "is above at most", _set("spec/maxReplicaCount", 0)),
    ("keda", "ScaledObject", "which is not there", _set("spec/scaleTargetRef/name", "no")),
    ("keda", "Deployment", "replicas is set", _set("spec/replicas", 2)),
    ("cpu", "PodDisruptionBudget", "give one of", lambda one: one["spec"].update(BOTH)),
    ("cpu", "PodDisruptionBudget", "fits no pod", _set("spec/selector/matchLabels/x", "y")),
    ("cpu", "PodDisruptionBudget", "allows no pod to be evicted", _set("spec/maxUnavailable", 0)),
    ("monitoring", "PodMonitor", "nothing with the labels", _set("spec/selector/matchLabels/x", "y")),
    ("monitoring", "PodMonitor", "named 'metric'", _set("spec/podMetricsEndpoints/0/port", "metric")),
    ("monitoring", "Deployment", "named 'metrics'", lambda one: _container(one).pop("ports")),
]
# Planted by a second object instead of a changed one, in tests of their own.
BY_AN_OBJECT = {"is there more than once", " autoscalers scale it", " is scraped "}


def _bundle(scenario: str | None, *settings: str) -> Bundle:
    return Bundle(tuple(copy.deepcopy(objects(scenario, *settings))), EXTERNAL)


@pytest.mark.parametrize("scenario", [None, *SCENARIOS])
def test_the_chart_breaks_no_rule(tools: object, scenario: str | None) -> None:
    assert problems(_bundle(scenario)) == []


def test_the_load_test_as_it_is_breaks_no_rule() -> None:
    folder = ROOT / "k8s" / "manifests" / "loadtest"
    files = [folder / "halimede.yaml", folder / "reader.yaml"]
    found = [one for file in files for one in yaml.safe_load_all(file.read_text()) if one]
    assert problems(Bundle(tuple(found))) == []
    claim = "nothing provides PersistentVolumeClaim halimede-load-runs"
    assert problems(Bundle(tuple(found[-1:]))) == [f"Pod/halimede-load-reader: {claim}"]


@pytest.mark.parametrize(("scenario", "kind", "said", "plant"), PLANTED)
def test_a_planted_error_is_found(tools: object, scenario: str, kind: str, said: str, plant: Plant) -> None:
    bundle = _bundle(scenario)
    plant(next(bundle.of(kind)))
    assert [problem for problem in problems(bundle) if said in problem]


@pytest.mark.parametrize("scenario", ["keda", "multi-model"])
def test_twice_the_same_object_and_two_autoscalers_are_found(tools: object, scenario: str) -> None:
    bundle = _bundle(scenario)
    scaler = next(bundle.of("ScaledObject", "HorizontalPodAutoscaler"))
    found = " ".join(problems(Bundle((*bundle.objects, scaler), EXTERNAL)))
    assert "is there more than once" in found
    assert "2 autoscalers scale it" in found


def test_a_monitor_of_services_is_checked_by_their_ports(tools: object) -> None:
    assert problems(_bundle(None, "monitoring.scrape.kind=ServiceMonitor")) == []
    without, twice = (_bundle(None, "monitoring.scrape.kind=ServiceMonitor") for _ in range(2))
    for service in without.of("Service"):
        service["spec"]["ports"] = [p for p in service["spec"]["ports"] if p["name"] != "metrics"]
    assert [problem for problem in problems(without) if "has a port named 'metrics'" in problem]
    for service in twice.of("Service"):
        ports = service["spec"]["ports"]
        if all(port["name"] != "metrics" for port in ports):
            ports.append({"name": "metrics", "port": 8002, "targetPort": "metrics"})
    assert [problem for problem in problems(twice) if "is scraped 2 times" in problem]


def test_every_message_of_a_rule_has_a_planted_error(tools: object) -> None:
    found = list(BY_AN_OBJECT)
    for scenario, kind, _, plant in PLANTED:
        bundle = _bundle(scenario)
        plant(next(bundle.of(kind)))
        found += problems(bundle)
    messages = [text for rule in relations.RULES for text in _messages(rule)]
    assert len(messages) > len(relations.RULES)
    assert [text for text in messages if not any(text in problem for problem in found)] == []


def _messages(rule: Callable[..., object]) -> Iterator[str]:
    """The longest literal part of each message that a rule can yield."""
    for node in ast.walk(ast.parse(inspect.getsource(rule))):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            parts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
            yield max((part for part in parts if isinstance(part, str)), key=len)


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
        assert [problem for problem in problems(bundle) if "nothing provides" in problem]
