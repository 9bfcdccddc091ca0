"""Monitors of the Prometheus operator: what they select must exist, once."""

from __future__ import annotations

from collections.abc import Iterator

from k8s.check.bundle import Bundle, Object, Pod, where

Found = Iterator[tuple[str, str]]


def monitor_finds_a_port(bundle: Bundle) -> Found:
    """A monitor without a target scrapes nothing and says nothing, and alerts on absence take minutes."""
    for monitor, endpoint in _endpoints(bundle):
        if not _targets(bundle, monitor, endpoint):
            labels, port = _labels(monitor), endpoint.get("port")
            yield where(monitor), f"nothing with the labels {labels} has a port named {port!r}"


def monitor_finds_a_port_once(bundle: Bundle) -> Found:
    """Two Services with the port of the same pods give every series twice, and every sum is doubled."""
    for monitor, endpoint in _endpoints(bundle):
        owners = [where(pod.owner) for pod in _targets(bundle, monitor, endpoint)]
        for owner in sorted({owner for owner in owners if owners.count(owner) > 1}):
            yield where(monitor), f"{owner} is scraped {owners.count(owner)} times"


def _endpoints(bundle: Bundle) -> Iterator[tuple[Object, Object]]:
    for monitor in bundle.of("ServiceMonitor", "PodMonitor"):
        spec = monitor["spec"]
        for endpoint in spec.get("endpoints", spec.get("podMetricsEndpoints", [])):
            yield monitor, endpoint


def _targets(bundle: Bundle, monitor: Object, endpoint: Object) -> list[Pod]:
    """The pods that are scraped, one as often as it is."""
    labels, port = _labels(monitor), endpoint.get("port")
    if monitor["kind"] == "PodMonitor":
        pods = bundle.selected(labels)
        return [pod for pod in pods if port in {opened["name"] for opened in pod.ports if "name" in opened}]
    services = [
        one
        for one in bundle.of("Service")
        if labels.items() <= one["metadata"].get("labels", {}).items()
        and any(offered.get("name") == port for offered in one["spec"]["ports"])
    ]
    return [pod for one in services for pod in bundle.selected(one["spec"].get("selector") or {"": ""})]


def _labels(monitor: Object) -> dict[str, str]:
    labels: dict[str, str] = monitor["spec"]["selector"].get("matchLabels", {})
    return labels


RULES = (monitor_finds_a_port, monitor_finds_a_port_once)
