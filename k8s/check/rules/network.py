"""Services, ports and network policies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from k8s.check.bundle import Bundle, Object, Pod, where

Found = Iterator[tuple[str, str]]
PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def service_selects_pods(bundle: Bundle) -> Found:
    """A Service whose selector fits no pod has no endpoints."""
    for one in _services(bundle):
        if not bundle.selected(one["spec"]["selector"]):
            yield where(one), f"no pod has the labels {one['spec']['selector']}"


def service_port_is_open(bundle: Bundle) -> Found:
    """targetPort names a port of some container of every pod selected."""
    for one in _services(bundle):
        for port in one["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for pod in bundle.selected(one["spec"]["selector"]):
                if not any(target in _names_of(opened) for opened in pod.ports):
                    yield where(one), f"{where(pod.owner)} opens no port {target}"


def policy_admits_service_ports(bundle: Bundle) -> Found:
    """A port that a Service offers is let in by a NetworkPolicy, where one holds for its pods."""
    for one in _services(bundle):
        for pod in bundle.selected(one["spec"]["selector"]):
            policies = [policy for policy in bundle.of("NetworkPolicy") if _restricts(policy, pod)]
            for port in one["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                if policies and not any(_admits(policy, pod, target) for policy in policies):
                    yield where(one), f"no NetworkPolicy admits port {target} of {where(pod.owner)}"


def policy_names_open_ports(bundle: Bundle) -> Found:
    """A named port of an ingress rule is one of the pods that the policy selects."""
    for policy in bundle.of("NetworkPolicy"):
        named = {p["port"] for rule in policy["spec"].get("ingress", []) for p in rule.get("ports", [])}
        for pod in bundle.selected(policy["spec"]["podSelector"].get("matchLabels", {})):
            known = {name for opened in pod.ports for name in _names_of(opened)}
            for port in sorted(one for one in named if isinstance(one, str)):
                if known and port not in known:
                    yield where(policy), f"{where(pod.owner)} opens no port {port}"


def policy_selects_pods(bundle: Bundle) -> Found:
    """A NetworkPolicy whose labels fit nothing protects nothing."""
    for policy in bundle.of("NetworkPolicy"):
        labels = policy["spec"]["podSelector"].get("matchLabels", {})
        if labels and not bundle.selected(labels):
            yield where(policy), f"no pod has the labels {labels}"


def ports_are_valid(bundle: Bundle) -> Found:
    """Numbers from 1 to 65535, names of RFC 6335, no name or number twice in a pod."""
    for pod in bundle.pods():
        opened = pod.ports
        names = [port["name"] for port in opened if "name" in port]
        numbers = [(port["containerPort"], port.get("protocol", "TCP")) for port in opened]
        for number, _ in numbers:
            if not 1 <= number <= 65535:
                yield where(pod.owner), f"port {number} must be between 1 and 65535"
        for name in names:
            if not PORT_NAME.fullmatch(name):
                yield where(pod.owner), f"port name {name!r} must be at most 15 of a-z, 0-9 and `-`"
        if len(set(names)) < len(names) or len(set(numbers)) < len(numbers):
            yield where(pod.owner), "two ports have one name or one number"


def service_ports_are_valid(bundle: Bundle) -> Found:
    """Numbers in range, and names where there is more than one port."""
    for one in bundle.of("Service"):
        ports = one["spec"].get("ports", [])
        for port in ports:
            if not 1 <= port["port"] <= 65535:
                yield where(one), f"port {port['port']} must be between 1 and 65535"
        if len(ports) > 1 and len({port.get("name") for port in ports} - {None}) < len(ports):
            yield where(one), "each of several ports needs a name of its own"


def _services(bundle: Bundle) -> Iterator[Object]:
    return (one for one in bundle.of("Service") if one["spec"].get("selector"))


def _names_of(port: Object) -> set[Any]:
    return {port["containerPort"], port.get("name", port["containerPort"])}


def _restricts(policy: Object, pod: Pod) -> bool:
    spec = policy["spec"]
    labels = spec["podSelector"].get("matchLabels", {})
    return "Ingress" in spec.get("policyTypes", ["Ingress"]) and labels.items() <= pod.labels.items()


def _admits(policy: Object, pod: Pod, target: str | int) -> bool:
    same = next((_names_of(port) for port in pod.ports if target in _names_of(port)), {target})
    return any(
        "ports" not in rule or any(port["port"] in same for port in rule["ports"])
        for rule in policy["spec"].get("ingress", [])
    )


RULES = (
    service_selects_pods,
    service_port_is_open,
    policy_admits_service_ports,
    policy_names_open_ports,
    policy_selects_pods,
    ports_are_valid,
    service_ports_are_valid,
)
