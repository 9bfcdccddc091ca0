"""The chart as plain manifests: no namespace, no mark of Helm, a kustomization beside them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

VARIANTS: Final = ("cpu", "gpu")
HEAD: Final = "# Made from k8s/chart by `make manifests`; change the chart or its ci/{variant}-values.yaml.\n"
OF_HELM: Final = ("helm.sh/chart", "helm.sh/resource-policy")
KUBERNETES: Final = "1.33.0"


def manifests(helm: Path, chart: Path, variant: str) -> dict[str, str]:
    """Text by file name. Raises RuntimeError with what helm says."""
    objects = [plain(found) for found in rendered(helm, chart, chart / "ci" / f"{variant}-values.yaml")]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["halimede.yaml"],
        "images": [{"name": name, "newTag": tag} for name, tag in sorted(images(objects).items())],
    }
    head = HEAD.format(variant=variant)
    return {
        "halimede.yaml": head + yaml.safe_dump_all(objects, sort_keys=False, width=1000),
        "kustomization.yaml": head + yaml.safe_dump(kustomization, sort_keys=False),
    }


def rendered(helm: Path, chart: Path, values: Path) -> list[dict[str, Any]]:
    command = [str(helm), "template", "halimede", str(chart), "--skip-tests", "--values", str(values)]
    command += ["--kube-version", KUBERNETES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    found = [one for one in yaml.safe_load_all(done.stdout) if one]
    # Helm 3 and Helm 4 order objects of one kind differently.
    return sorted(found, key=lambda one: (one["kind"], one["metadata"]["name"]))


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """Without namespace, so that that of kubectl or kustomize holds, and without what only Helm reads."""
    found["metadata"].pop("namespace", None)
    for metadata in _metadata(found):
        for key in ("labels", "annotations"):
            for name in OF_HELM:
                metadata.get(key, {}).pop(name, None)
            if not metadata.get(key, True):
                del metadata[key]
        if "app.kubernetes.io/managed-by" in metadata.get("labels", {}):
            metadata["labels"]["app.kubernetes.io/managed-by"] = "kustomize"
    return found


def _metadata(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield found["metadata"]
    if "template" in found.get("spec", {}):
        yield found["spec"]["template"]["metadata"]


def images(objects: list[dict[str, Any]]) -> dict[str, str]:
    """Tag by image, of every container."""
    pods = [one["spec"]["template"]["spec"] for one in objects if "template" in one.get("spec", {})]
    containers = [part for pod in pods for part in [*pod.get("initContainers", []), *pod["containers"]]]
    named = [container["image"].partition(":") for container in containers]
    return {name: tag or "latest" for name, _, tag in named}
