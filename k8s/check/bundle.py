"""The objects that are applied together, and questions about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Rollout"})


class Unreadable(Exception):
    """A file that is not a list of Kubernetes objects; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one object. `check` is the rule or schema that says so."""

    check: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.check}]"


@dataclass(frozen=True, slots=True)
class Bundle:
    """`external` holds what others provide: pairs of kind and name, as in ("Secret", "keys")."""

    objects: tuple[Object, ...]
    external: frozenset[tuple[str, str]] = frozenset()

    def of(self, *kinds: str) -> Iterator[Object]:
        """Objects of these kinds."""
        return (one for one in self.objects if one["kind"] in kinds)

    def pods(self) -> Iterator[Pod]:
        """Every pod, or template of pods."""
        for one in self.objects:
            template = one if one["kind"] == "Pod" else _template(one)
            if template is not None:
                yield Pod(one, template.get("metadata", {}).get("labels", {}), template["spec"])

    def selected(self, labels: Mapping[str, str]) -> list[Pod]:
        """The pods that have all of `labels`."""
        return [pod for pod in self.pods() if labels.items() <= pod.labels.items()]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod or the template of pods that `owner` makes."""

    owner: Object
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """Those that run, and sidecars: init containers that are restarted."""
        sidecars = [
            one for one in self.spec.get("initContainers", []) if one.get("restartPolicy") == "Always"
        ]
        return [*self.spec["containers"], *sidecars]

    @property
    def ports(self) -> list[Object]:
        """What its containers open."""
        return [port for container in self.containers for port in container.get("ports", [])]

    @property
    def all_containers(self) -> list[Object]:
        """Those that run and those that run before."""
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]


def where(one: Object) -> str:
    """Kind and name."""
    return f"{one['kind']}/{one['metadata']['name']}"


def read(files: Iterable[Path]) -> tuple[Object, ...]:
    """Every object in `files`. Raises Unreadable."""
    return tuple(one for file in files for one in _objects(file))


def _objects(file: Path) -> list[Object]:
    try:
        found = [one for one in yaml.safe_load_all(file.read_text()) if one is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise Unreadable(f"{file}: {fault}") from fault
    for one in found:
        if not isinstance(one, dict) or not {"apiVersion", "kind", "metadata"} <= one.keys():
            raise Unreadable(f"{file}: a document is no object with apiVersion, kind and metadata")
    return found


def _template(one: Object) -> Object | None:
    spec = one.get("spec") or {}
    if one["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec.get("template") if one["kind"] in WORKLOADS | {"Job", "CronJob"} else None
    return template if isinstance(template, dict) else None
