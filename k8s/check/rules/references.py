"""Names of other objects: they are in the bundle, or declared as provided by others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k8s.check.bundle import Bundle, Object, Pod, where

Found = Iterator[tuple[str, str]]


def references_exist(bundle: Bundle) -> Found:
    """ConfigMaps, Secrets, claims and service accounts that pods name."""
    there = {(one["kind"], one["metadata"]["name"]) for one in bundle.objects} | bundle.external
    for pod in bundle.pods():
        for kind, name in sorted(set(_needed(pod))):
            if (kind, name) not in there:
                yield where(pod.owner), f"nothing provides {kind} {name}; is it external?"


def config_keys_exist(bundle: Bundle) -> Found:
    """Keys that pods take from a ConfigMap of the bundle."""
    maps = {one["metadata"]["name"]: one for one in bundle.of("ConfigMap")}
    for pod in bundle.pods():
        for name, key in _keys(pod):
            if name in maps and key not in maps[name].get("data", {}) | maps[name].get("binaryData", {}):
                yield where(pod.owner), f"ConfigMap {name} has no key {key}"


def _needed(pod: Pod) -> Iterator[tuple[str, str]]:
    if "serviceAccountName" in pod.spec and pod.spec["serviceAccountName"] != "default":
        yield "ServiceAccount", pod.spec["serviceAccountName"]
    for pull in pod.spec.get("imagePullSecrets", []):
        yield "Secret", pull["name"]
    for source in _sources(pod):
        for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            yield from ((kind, str(name)) for name in _required(source, field))
        if "persistentVolumeClaim" in source:
            yield "PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"]


def _required(source: Object, field: str) -> Iterator[Any]:
    for key in (field, f"{field}Ref", f"{field}KeyRef"):
        named = source.get(key)
        if named and not named.get("optional"):
            yield named.get("name") or named["secretName"]


def _sources(pod: Pod) -> Iterator[Object]:
    """Whatever may name another object: volumes, parts of projected ones, and environments."""
    for volume in pod.spec.get("volumes", []):
        yield volume
        yield from volume.get("projected", {}).get("sources", [])
    for container in pod.all_containers:
        yield from container.get("envFrom", [])
        yield from (one["valueFrom"] for one in container.get("env", []) if "valueFrom" in one)


def _keys(pod: Pod) -> Iterator[tuple[str, str]]:
    for source in _sources(pod):
        for field in ("configMap", "configMapKeyRef"):
            named = source.get(field, {})
            yield from ((named["name"], item["key"]) for item in named.get("items", []))
            if "key" in named:
                yield named["name"], named["key"]


RULES = (references_exist, config_keys_exist)
