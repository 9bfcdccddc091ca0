"""Rules on what objects that are applied together must agree on.

kubernetes-validate and CRDs look at one object, and checkov at good practice. kube-linter has some of these
rules but is in no package index. What an API server refuses is here too where a template could get it wrong:
the tests have no cluster.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Found = Iterator[tuple[Object, str]]
WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"})


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod or the template of pods that `owner` makes."""

    owner: Object
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]

    @property
    def ports(self) -> list[set[Any]]:
        """What its containers open, each by its number and its name."""
        opened = [port for container in self.spec["containers"] for port in container.get("ports", [])]
        return [{port["containerPort"], port.get("name", port["containerPort"])} for port in opened]


@dataclass(frozen=True, slots=True)
class Bundle:
    """`external` holds what others provide: pairs of kind and name, as in ("Secret", "keys")."""

    objects: tuple[Object, ...]
    external: frozenset[tuple[str, str]] = frozenset()

    def of(self, *kinds: str) -> Iterator[Object]:
        return (one for one in self.objects if one["kind"] in kinds)

    def pods(self) -> Iterator[Pod]:
        for one in self.objects:
            if one["kind"] in WORKLOADS | {"Job", "Pod"}:
                template = one if one["kind"] == "Pod" else one["spec"]["template"]
                yield Pod(one, template["metadata"].get("labels", {}), template["spec"])

    def selected(self, labels: Mapping[str, str]) -> list[Pod]:
        """The pods that have all of `labels`."""
        return [pod for pod in self.pods() if labels.items() <= pod.labels.items()]


def problems(bundle: Bundle) -> list[str]:
    """What every rule finds."""
    return [f"{where(one)}: {message}" for rule in RULES for one, message in rule(bundle)]


def where(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
# A Service's name is part of a host name, and these kinds become labels of their pods.
LABELLED = ("Service", "Deployment", "StatefulSet", "Job", "Namespace")


def names(bundle: Bundle) -> Found:
    """The name of a release is part of them, and an API server refuses what is too long."""
    for one in bundle.objects:
        name = str(one["metadata"]["name"])
        parts, longest = ([name], 63) if one["kind"] in LABELLED else (name.split("."), 253)
        if len(name) > longest or not all(LABEL.fullmatch(part) for part in parts):
            yield one, f"the name must be a DNS name of at most {longest} characters"
        for key, value in one["metadata"].get("labels", {}).items():
            if not isinstance(value, str) or len(value) > 63 or not VALUE.fullmatch(value):
                yield one, f"label {key}: {value!r} is no string of 63 letters, digits, `-_.`"


def uniqueness(bundle: Bundle) -> Found:
    """Two objects of one kind, namespace and name overwrite each other."""
    seen = set()
    for one in bundle.objects:
        key = (one["apiVersion"].partition("/")[0], where(one), one["metadata"].get("namespace"))
        if key in seen:
            yield one, "is there more than once"
        seen.add(key)


def services(bundle: Bundle) -> Found:
    """Without a pod, its port or a policy that admits it, a Service has no endpoint that answers."""
    for one in bundle.of("Service"):
        pods = bundle.selected(one["spec"]["selector"])
        if not pods:
            yield one, f"no pod has the labels {one['spec']['selector']}"
        for pod in pods:
            for port in one["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                opened = next((names for names in pod.ports if target in names), None)
                if opened is None:
                    yield one, f"{where(pod.owner)} opens no port {target}"
                elif not _admitted(bundle, pod, opened):
                    yield one, f"no NetworkPolicy admits port {target} of {where(pod.owner)}"


def _admitted(bundle: Bundle, pod: Pod, port: set[Any]) -> bool:
    """By a policy, where one holds for the pod."""
    policies = [
        policy["spec"]
        for policy in bundle.of("NetworkPolicy")
        if "Ingress" in policy["spec"].get("policyTypes", ["Ingress"])
        and policy["spec"]["podSelector"].get("matchLabels", {}).items() <= pod.labels.items()
    ]
    rules = [rule for policy in policies for rule in policy.get("ingress", [])]
    admitted = [one["port"] for rule in rules for one in rule.get("ports", [])]
    return not policies or any("ports" not in rule for rule in rules) or not port.isdisjoint(admitted)


def policies(bundle: Bundle) -> Found:
    """A NetworkPolicy whose labels fit nothing protects nothing."""
    for policy in bundle.of("NetworkPolicy"):
        labels = policy["spec"]["podSelector"].get("matchLabels", {})
        if labels and not bundle.selected(labels):
            yield policy, f"protects no pod: none has the labels {labels}"


def workloads(bundle: Bundle) -> Found:
    """An API server refuses a workload whose selector does not fit its own pods."""
    for pod in bundle.pods():
        wanted = pod.owner["spec"].get("selector", {}).get("matchLabels", {})
        if pod.owner["kind"] in WORKLOADS and not (wanted and wanted.items() <= pod.labels.items()):
            yield pod.owner, f"the selector {wanted} does not fit the labels of its pods"


def references(bundle: Bundle) -> Found:
    """A pod that names what is not there never starts."""
    there = {(one["kind"], one["metadata"]["name"]) for one in bundle.objects} | bundle.external
    maps = {one["metadata"]["name"]: one for one in bundle.of("ConfigMap")}
    for pod in bundle.pods():
        for kind, name in sorted(set(_needed(pod)) - there):
            yield pod.owner, f"nothing provides {kind} {name}"
        for name, key in _keys(pod):
            if name in maps and key not in maps[name].get("data", {}) | maps[name].get("binaryData", {}):
                yield pod.owner, f"ConfigMap {name} has no key {key}"


def _needed(pod: Pod) -> Iterator[tuple[str, str]]:
    if pod.spec.get("serviceAccountName", "default") != "default":
        yield "ServiceAccount", pod.spec["serviceAccountName"]
    yield from (("Secret", pull["name"]) for pull in pod.spec.get("imagePullSecrets", []))
    for source in _sources(pod):
        for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            for named in filter(None, (source.get(key) for key in (field, f"{field}Ref", f"{field}KeyRef"))):
                if not named.get("optional"):
                    yield kind, named.get("name") or named["secretName"]
        if "persistentVolumeClaim" in source:
            yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"]


def _sources(pod: Pod) -> Iterator[Object]:
    """Whatever may name another object: volumes, parts of projected ones, and environments."""
    for volume in pod.spec.get("volumes", []):
        yield volume
        yield from volume.get("projected", {}).get("sources", [])
    for container in pod.containers:
        yield from container.get("envFrom", [])
        yield from (one["valueFrom"] for one in container.get("env", []) if "valueFrom" in one)


def _keys(pod: Pod) -> Iterator[tuple[str, str]]:
    for source in _sources(pod):
        for named in (source.get("configMap", {}), source.get("configMapKeyRef", {})):
            yield from ((named["name"], item["key"]) for item in named.get("items", []))
            if "key" in named:
                yield named["name"], named["key"]


def scalers(bundle: Bundle) -> Found:
    """Two autoscalers, or an autoscaler and `replicas`, undo each other's work."""
    there = {(one["kind"], one["metadata"]["name"]) for one in bundle.objects}
    found = list(bundle.of("HorizontalPodAutoscaler", "ScaledObject"))
    for one in found:
        spec = one["spec"]
        least, most = (
            spec.get(f"{edge}Replicas", spec.get(f"{edge}ReplicaCount")) for edge in ("min", "max")
        )
        if least > most:
            yield one, f"at least {least} replicas is above at most {most}"
        if _target(one) not in there:
            yield one, f"scales {'/'.join(_target(one))}, which is not there"
    scaled = Counter(map(_target, found))
    for one in bundle.objects:
        count = scaled[one["kind"], one["metadata"]["name"]]
        if count > 1:
            yield one, f"{count} autoscalers scale it"
        if count and "replicas" in one["spec"]:
            yield one, "replicas is set, and an autoscaler sets it"


def _target(scaler: Object) -> tuple[str, str]:
    target = scaler["spec"]["scaleTargetRef"]
    return target.get("kind", "Deployment"), target["name"]


def budgets(bundle: Bundle) -> Found:
    """One for no pods protects nothing, and one that allows no disruption blocks every drain of a node."""
    for one in bundle.of("PodDisruptionBudget"):
        spec = one["spec"]
        pods = bundle.selected(spec["selector"]["matchLabels"])
        replicas = [pod.owner["spec"].get("replicas", 1) for pod in pods]
        if len({"minAvailable", "maxUnavailable"} & spec.keys()) != 1:
            yield one, "give one of minAvailable and maxUnavailable"
        if not pods:
            yield one, "its selector fits no pod"
        elif spec.get("maxUnavailable") in (0, "0%") or spec.get("minAvailable") in (max(replicas), "100%"):
            yield one, "allows no pod to be evicted: a drain of a node never ends"


def monitors(bundle: Bundle) -> Found:
    """Without a target a monitor is silent for good; two Services with one port count every series twice."""
    for monitor in bundle.of("ServiceMonitor", "PodMonitor"):
        spec = monitor["spec"]
        labels = spec["selector"]["matchLabels"]
        for endpoint in spec.get("endpoints", spec.get("podMetricsEndpoints")):
            if monitor["kind"] == "PodMonitor":
                pods = [
                    pod for pod in bundle.selected(labels) if any(endpoint["port"] in p for p in pod.ports)
                ]
            else:
                offered = [one for one in bundle.of("Service") if _offers(one, labels, endpoint["port"])]
                pods = [pod for one in offered for pod in bundle.selected(one["spec"]["selector"])]
            if not pods:
                yield monitor, f"nothing with the labels {labels} has a port named {endpoint['port']!r}"
            for owner, times in Counter(where(pod.owner) for pod in pods).items():
                if times > 1:
                    yield monitor, f"{owner} is scraped {times} times"


def _offers(service: Object, labels: Mapping[str, str], port: str) -> bool:
    fits = labels.items() <= service["metadata"]["labels"].items()
    return fits and any(offered.get("name") == port for offered in service["spec"]["ports"])


RULES: tuple[Callable[[Bundle], Found], ...] = (
    names,
    uniqueness,
    services,
    policies,
    workloads,
    references,
    scalers,
    budgets,
    monitors,
)
