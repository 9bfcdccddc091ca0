"""Volumes and where they are mounted."""

from __future__ import annotations

from collections.abc import Iterator

from k8s.check.bundle import Bundle, where

Found = Iterator[tuple[str, str]]


def mounts_have_volumes(bundle: Bundle) -> Found:
    """A volumeMount names a volume of its pod."""
    for pod in bundle.pods():
        there = {one["name"] for one in pod.spec.get("volumes", [])}
        for container in pod.all_containers:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in there:
                    yield (
                        where(pod.owner),
                        f"container {container['name']} mounts {mount['name']}: no such volume",
                    )


def volumes_are_mounted(bundle: Bundle) -> Found:
    """A volume that nobody mounts is a mistake."""
    for pod in bundle.pods():
        used = {mount["name"] for one in pod.all_containers for mount in one.get("volumeMounts", [])}
        for volume in pod.spec.get("volumes", []):
            if volume["name"] not in used:
                yield where(pod.owner), f"no container mounts the volume {volume['name']}"


def mount_paths_differ(bundle: Bundle) -> Found:
    """The API server refuses two mounts at one path."""
    for pod in bundle.pods():
        for container in pod.all_containers:
            paths = [mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts", [])]
            if len(set(paths)) < len(paths):
                yield where(pod.owner), f"container {container['name']} mounts two volumes at one path"


RULES = (mounts_have_volumes, volumes_are_mounted, mount_paths_differ)
