"""The manifests of a distributed load test: labels, ports, volumes and arguments agree with each other."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import yaml

from loadtest import load
from loadtest.traffic.profile import load_profile
from loadtest.users.session import MASTER_PORT
from tests.paths import ROOT

FOLDER = ROOT / "k8s" / "manifests" / "loadtest"
DOCUMENTS: list[dict[str, Any]] = [
    document
    for name in ("halimede.yaml", "reader.yaml")
    for document in yaml.safe_load_all((FOLDER / name).read_text("utf-8"))
    if document
]
MASTER, WORKER, READER = "loadtest-master", "loadtest-worker", "reader"


def _one(kind: str) -> dict[str, Any]:
    (found,) = [document for document in DOCUMENTS if document["kind"] == kind]
    return found


def _pods() -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """Labels and spec of each Pod that the manifests make, by component."""
    templates = [_one("Job")["spec"]["template"], _one("Deployment")["spec"]["template"]]
    pods = [(one["metadata"]["labels"], one["spec"]) for one in [*templates, _one("Pod")]]
    return {labels["app.kubernetes.io/component"]: (labels, spec) for labels, spec in pods}


def _selected(labels: dict[str, str]) -> set[str]:
    return {name for name, (found, _) in _pods().items() if labels.items() <= found.items()}


def _args(component: str) -> list[str]:
    (container,) = _pods()[component][1]["containers"]
    arguments: list[str] = container["args"]
    return arguments


def test_the_service_leads_to_the_masters_port() -> None:
    service = _one("Service")["spec"]
    assert _selected(service["selector"]) == {MASTER}
    (port,) = service["ports"]
    (container,) = _pods()[MASTER][1]["containers"]
    assert {p["name"]: p["containerPort"] for p in container["ports"]} == {port["targetPort"]: port["port"]}


def test_the_deployment_selects_and_spreads_its_own_pods() -> None:
    workers = _one("Deployment")["spec"]
    labels = workers["template"]["metadata"]["labels"]
    assert workers["selector"]["matchLabels"] == labels
    (spread,) = workers["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels


def test_the_policy_lets_workers_reach_the_master_and_both_the_server() -> None:
    policy = _one("NetworkPolicy")["spec"]
    (chosen,) = policy["podSelector"]["matchExpressions"]
    assert set(chosen["values"]) == {MASTER, WORKER}
    (inward,) = policy["ingress"]
    (peer,) = inward["from"]
    assert _selected(peer["podSelector"]["matchLabels"]) == {WORKER}
    assert [port["port"] for port in inward["ports"]] == [MASTER_PORT]
    anywhere, server = policy["egress"]
    assert {port["port"] for port in anywhere["ports"]} == {53, MASTER_PORT}
    assert {port["port"] for port in server["ports"]} == {8000, 8001, 8002}
    assert server["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "server"


@pytest.mark.parametrize("component", [MASTER, WORKER, READER])
def test_every_pod_is_confined(component: str) -> None:
    _, spec = _pods()[component]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    confined = container["securityContext"]
    assert confined["readOnlyRootFilesystem"] is True
    assert confined["allowPrivilegeEscalation"] is False
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    named = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == named


def test_volumes_come_from_what_is_applied() -> None:
    profile, runs, _ = _pods()[MASTER][1]["volumes"]
    assert profile["configMap"]["name"] == _one("ConfigMap")["metadata"]["name"]
    claim = _one("PersistentVolumeClaim")["metadata"]["name"]
    (reports,) = _pods()[READER][1]["volumes"]
    assert runs["persistentVolumeClaim"]["claimName"] == claim
    assert reports["persistentVolumeClaim"]["claimName"] == claim


def test_the_load_program_takes_every_argument() -> None:
    master = load._parser().parse_args(_args(MASTER))
    worker = load._parser().parse_args(_args(WORKER))
    assert master.master
    assert not master.worker
    assert worker.worker
    assert worker.master_host == _one("Service")["metadata"]["name"]
    assert master.expect_workers == _one("Deployment")["spec"]["replicas"]
    (port,) = _one("Service")["spec"]["ports"]
    assert master.master_port == worker.master_port == MASTER_PORT == port["port"]


def test_the_master_finds_its_profile_and_writes_its_reports_where_they_are_kept() -> None:
    master = load._parser().parse_args(_args(MASTER))
    (container,) = _pods()[MASTER][1]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    ((name, text),) = _one("ConfigMap")["data"].items()
    assert master.profile == f"{mounts['profile']}/{name}"
    shipped = ROOT / "k8s" / "chart" / "files" / "load-profile.toml"
    assert tomllib.loads(text) == tomllib.loads(shipped.read_text("utf-8"))
    assert load_profile(shipped).mix
    assert master.out is None
    home = "/opt/halimede"
    lines = (ROOT / "loadtest" / "Dockerfile").read_text("utf-8").splitlines()
    assert {f"WORKDIR {home}", f"COPY loadtest {home}/loadtest"} <= set(lines)
    assert mounts["runs"] == f"{home}/runs"


def test_the_image_is_the_one_that_kustomize_renames_and_the_dockerfile_says() -> None:
    (image,) = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))["images"]
    images = {container["image"] for _, spec in _pods().values() for container in spec["containers"]}
    assert images == {image["name"]}
    lines = (ROOT / "loadtest" / "Dockerfile").read_text("utf-8").splitlines()
    assert "USER 10001" in lines
    assert any(f"-t {image['name']} " in line for line in lines)
