"""The chart as helm renders it, for tests: once for each scenario, Helm and Kubernetes."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.paths import ROOT

CHART = ROOT / "k8s" / "chart"
RULES = CHART / "files" / "rules"
BIN = ROOT / ".cache" / "k8s" / "bin"
NAMESPACE = "serving"
SCENARIOS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


class Refused(Exception):
    """helm refused; its error."""


class Strict(yaml.SafeLoader):
    """Reads as Flux and kustomize do: a key must not be in a map twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]!r} is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


@functools.cache
def _template(helm: str, kube: str, arguments: tuple[str, ...]) -> str:
    program = BIN / helm
    assert program.exists(), f"{program} is missing: make setup-k8s"
    options = ["--namespace", NAMESPACE, "--kube-version", kube, *arguments]
    command = [str(program), "template", "halimede", str(CHART), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return str(done.stdout)


def objects(
    scenario: str | None = None,
    *settings: str,
    helm: str = "helm4",
    kube: str = "1.34.0",
    files: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """`settings` are those of --set, `files` those of --values. Raises Refused."""
    scenarios = [CHART / "ci" / f"{scenario}-values.yaml"] if scenario else []
    values = [f"--values={file}" for file in (*scenarios, *files)]
    text = _template(helm, kube, (*values, *(f"--set={one}" for one in settings)))
    return [one for one in yaml.load_all(text, Strict) if one]


def one(found: list[dict[str, Any]], kind: str, name: str = "halimede") -> dict[str, Any]:
    (only,) = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    return only


def pod(found: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = one(found, "Deployment")["spec"]["template"]["spec"]
    return spec


def triton(found: list[dict[str, Any]]) -> dict[str, Any]:
    container: dict[str, Any] = pod(found)["containers"][0]
    return container
