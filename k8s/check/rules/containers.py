"""Selectors, resources, probes and the end of a container."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.check.bundle import WORKLOADS, Bundle, Object, where
from k8s.check.quantity import amount

Found = Iterator[tuple[str, str]]
# A large model takes minutes to load from a network volume.
LEAST_START_S = 300


def selector_fits_template(bundle: Bundle) -> Found:
    """The API server refuses a workload whose selector does not fit its own pods."""
    for pod in bundle.pods():
        wanted = pod.owner["spec"].get("selector", {}).get("matchLabels", {})
        if pod.owner["kind"] in WORKLOADS and not (wanted and wanted.items() <= pod.labels.items()):
            yield where(pod.owner), f"the selector {wanted} does not fit the labels of its pods"


def requests_are_within_limits(bundle: Bundle) -> Found:
    """A request above its limit is refused; an extended resource needs both to be equal."""
    for pod in bundle.pods():
        for container in pod.all_containers:
            resources = container.get("resources", {})
            for name, limit in resources.get("limits", {}).items():
                request = resources.get("requests", {}).get(name, limit)
                if amount(request) > amount(limit):
                    yield _at(pod.owner, container), f"requests {request} of {name}, its limit is {limit}"
                elif "/" in name and amount(request) != amount(limit):
                    yield (
                        _at(pod.owner, container),
                        f"{name}: request {request} and limit {limit} must be equal",
                    )


def servers_have_probes(bundle: Bundle) -> Found:
    """A container that opens ports and never ends says when it is ready and whether it lives."""
    for owner, container in _servers(bundle):
        for probe in ("readinessProbe", "livenessProbe"):
            if probe not in container:
                yield _at(owner, container), f"has no {probe}"


def liveness_spares_a_loading_server(bundle: Bundle) -> Found:
    """Liveness begins when startup has ended, and startup leaves time to load."""
    for owner, container in _servers(bundle):
        startup = container.get("startupProbe")
        if "livenessProbe" in container and startup is None:
            yield _at(owner, container), "without a startupProbe, the livenessProbe kills a loading server"
        elif startup is not None:
            seconds = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
            if seconds < LEAST_START_S:
                yield (
                    _at(owner, container),
                    f"startupProbe ends after {seconds} s: at least {LEAST_START_S} s",
                )


def liveness_asks_less_than_readiness(bundle: Bundle) -> Found:
    """What makes a server not ready must not make it die."""
    for owner, container in _servers(bundle):
        live, ready = ({**container.get(name, {})} for name in ("livenessProbe", "readinessProbe"))
        asked = [[probe.get(how) for how in ("httpGet", "exec", "grpc")] for probe in (live, ready)]
        if live and asked[0] == asked[1] and any(asked[0]):
            yield _at(owner, container), "livenessProbe asks what readinessProbe asks: not ready would kill"


def drain_ends_before_the_kill(bundle: Bundle) -> Found:
    """The grace period runs from the beginning of preStop."""
    for pod in bundle.pods():
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        for container in pod.containers:
            hook = container.get("lifecycle", {}).get("preStop", {})
            seconds = _longest(hook)
            if seconds >= grace:
                message = f"preStop takes up to {seconds:g} s, terminationGracePeriodSeconds is {grace}"
                yield _at(pod.owner, container), message


def rollout_keeps_replicas(bundle: Bundle) -> Found:
    """What serves is replaced before it is stopped."""
    for one in bundle.of("Deployment"):
        if not any(port for owner, port in _servers(bundle) if owner is one):
            continue
        rolling = one["spec"].get("strategy", {}).get("rollingUpdate", {})
        if rolling.get("maxUnavailable", "25%") not in (0, "0%"):
            yield where(one), "strategy.rollingUpdate.maxUnavailable must be 0"


def _longest(hook: Object) -> float:
    """The seconds of a `sleep` or of flags that end in `timeout-s=SECONDS`."""
    if "sleep" in hook:
        return float(hook["sleep"]["seconds"])
    command = " ".join(map(str, hook.get("exec", {}).get("command", [])))
    timeouts = [float(one) for one in re.findall(r"timeout-s[= ](\d+(?:\.\d+)?)", command)]
    return max([*timeouts, *(float(one) for one in re.findall(r"\bsleep (\d+)", command))], default=0.0)


def _servers(bundle: Bundle) -> Iterator[tuple[Object, Object]]:
    for pod in bundle.pods():
        if pod.owner["kind"] in WORKLOADS:
            yield from ((pod.owner, one) for one in pod.spec["containers"] if one.get("ports"))


def _at(owner: Object, container: Object) -> str:
    return f"{where(owner)} container {container['name']}"


RULES = (
    selector_fits_template,
    requests_are_within_limits,
    servers_have_probes,
    liveness_spares_a_loading_server,
    liveness_asks_less_than_readiness,
    drain_ends_before_the_kill,
    rollout_keeps_replicas,
)
