"""The manifests of a distributed load test: labels, ports, volumes and arguments agree with each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from loadtest import load
from loadtest.artifacts import ROOT
from loadtest.traffic.profile import load_profile
from loadtest.users.session import MASTER_PORT

FOLDER = ROOT / "k8s" / "loadtest"
MANIFESTS = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")


def _documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text("utf-8"))]


def _one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [d for d in _documents() if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    return found


def _pods() -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Labels and spec of each Pod that the manifests make."""
    for document in _documents():
        if document["kind"] == "Pod":
            yield document["metadata"]["labels"], document["spec"]
        elif document["kind"] in {"Job", "Deployment"}:
            template = document["spec"]["template"]
            yield template["metadata"]["labels"], template["spec"]


def _matching(selector: dict[str, str]) -> list[dict[str, Any]]:
    return [spec for labels, spec in _pods() if selector.items() <= labels.items()]


def _args(kind: str, name: str) -> list[str]:
    (container,) = _one(kind, name)["spec"]["template"]["spec"]["containers"]
    arguments: list[str] = container["args"]
    return arguments


def _kustomization() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text("utf-8"))
    return found


def test_all_but_the_reader_is_applied_and_no_namespace_is_named() -> None:
    assert {*_kustomization()["resources"], "reader.yaml"} == {path.name for path in MANIFESTS}
    assert not [document for document in _documents() if "namespace" in document["metadata"]]


def test_the_service_and_the_policies_select_the_pods_that_they_name() -> None:
    service = _one("Service", "halimede-load-master")["spec"]
    (master,) = _matching(service["selector"])
    (port,) = service["ports"]
    assert {p["name"]: p["containerPort"] for c in master["containers"] for p in c["ports"]} == {
        port["targetPort"]: port["port"]
    }
    for name in ("halimede-load-master", "halimede-load-workers"):
        policy = _one("NetworkPolicy", name)["spec"]
        kind = "Job" if name.endswith("master") else "Deployment"
        assert _matching(policy["podSelector"]["matchLabels"]) == [
            _one(kind, name)["spec"]["template"]["spec"]
        ]


def test_the_deployment_selects_and_spreads_its_own_pods() -> None:
    workers = _one("Deployment", "halimede-load-workers")["spec"]
    labels = workers["template"]["metadata"]["labels"]
    assert workers["selector"]["matchLabels"] == labels
    (spread,) = workers["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == labels


def test_the_policies_open_the_masters_port_from_both_sides() -> None:
    (port,) = _one("Service", "halimede-load-master")["spec"]["ports"]
    (rule,) = _one("NetworkPolicy", "halimede-load-master")["spec"]["ingress"]
    workers = _one("Deployment", "halimede-load-workers")["spec"]["template"]
    assert rule["ports"] == [{"port": port["port"], "protocol": "TCP"}]
    assert [_matching(peer["podSelector"]["matchLabels"]) for peer in rule["from"]] == [[workers["spec"]]]
    assert _one("NetworkPolicy", "halimede-load-workers")["spec"]["ingress"] == []
    outward = [r for r in _one("NetworkPolicy", "halimede-load-workers")["spec"]["egress"] if "to" in r]
    assert [r["ports"] for r in outward] == [rule["ports"]]
    master = _one("Job", "halimede-load-master")["spec"]["template"]["spec"]
    assert [_matching(peer["podSelector"]["matchLabels"]) for r in outward for peer in r["to"]] == [[master]]


@pytest.mark.parametrize("component", ["master", "worker", "reader"])
def test_every_pod_is_confined(component: str) -> None:
    (spec,) = _matching({"app.kubernetes.io/component": component})
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        named = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == named


def test_volumes_come_from_what_is_applied() -> None:
    (made,) = _kustomization()["configMapGenerator"]
    profile, runs, _ = _one("Job", "halimede-load-master")["spec"]["template"]["spec"]["volumes"]
    assert profile["configMap"]["name"] == made["name"]
    assert runs["persistentVolumeClaim"]["claimName"] == _one("PersistentVolumeClaim", "halimede-load-runs")[
        "metadata"]["name"]  # fmt: skip
    assert load_profile(FOLDER / made["files"][0]).mix


def test_the_load_program_takes_every_argument() -> None:
    master = load._parser().parse_args(_args("Job", "halimede-load-master"))
    worker = load._parser().parse_args(_args("Deployment", "halimede-load-workers"))
    assert master.master
    assert not master.worker
    assert worker.worker
    assert worker.master_host == _one("Service", "halimede-load-master")["metadata"]["name"]
    assert master.expect_workers == _one("Deployment", "halimede-load-workers")["spec"]["replicas"]
    (port,) = _one("Service", "halimede-load-master")["spec"]["ports"]
    assert master.master_port == worker.master_port == MASTER_PORT == port["port"]


def test_the_master_finds_its_profile_and_writes_its_reports_where_they_are_kept() -> None:
    (made,) = _kustomization()["configMapGenerator"]
    master = load._parser().parse_args(_args("Job", "halimede-load-master"))
    (container,) = _one("Job", "halimede-load-master")["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert master.profile == f"{mounts['profile']}/{made['files'][0]}"
    assert master.out is None
    home = "/opt/halimede"
    lines = (ROOT / "loadtest" / "Dockerfile").read_text("utf-8").splitlines()
    assert {f"WORKDIR {home}", f"COPY loadtest {home}/loadtest"} <= set(lines)
    assert mounts["runs"] == f"{home}/runs"


def test_the_image_is_the_one_that_kustomize_renames_and_the_dockerfile_says() -> None:
    (image,) = _kustomization()["images"]
    assert {container["image"] for _, spec in _pods() for container in spec["containers"]} == {image["name"]}
    lines = (ROOT / "loadtest" / "Dockerfile").read_text("utf-8").splitlines()
    assert "USER 10001" in lines
    assert any(f"-t {image['name']} " in line for line in lines)
