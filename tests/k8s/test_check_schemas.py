"""Schemas of every Kubernetes that is supported, CRDs, and the program that asks them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.check import crds, kubernetes
from k8s.check.__main__ import CRDS, main
from k8s.check.bundle import Object
from tests.k8s.charts import ROOT, SCENARIOS, Refused, objects, one

LOADTEST = [ROOT / "k8s" / "manifests" / "loadtest" / name for name in ("halimede.yaml", "reader.yaml")]
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"kind": "Thing"},
        "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {}}}],
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "least": {"type": "integer", "default": 1},
                "most": {"type": "integer"},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "named": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "x-kubernetes-validations": [
                {"rule": "self.least <= self.most", "message": "least is above most"},
                {"rule": "self.most == oldSelf.most"},
            ],
        }
    },
}


def _rendered(scenario: str, version: str) -> list[Object]:
    try:
        return objects(scenario, kube=f"{version}.0")
    except Refused:
        if scenario == "air-gapped" and version < "1.33":
            return []
        raise


@pytest.mark.parametrize("version", kubernetes.VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kubernetes_takes_the_chart(tools: Path, scenario: str, version: str) -> None:
    found = [
        problem for part in _rendered(scenario, version) for problem in kubernetes.problems(part, version)
    ]
    assert found == []


@pytest.mark.parametrize("version", kubernetes.VERSIONS)
def test_unknown_fields_types_and_kinds_are_found(tools: Path, version: str) -> None:
    deployment = one(objects("cpu"), "Deployment")
    for change in ({"replicsa": 2}, {"replicas": "two"}):
        assert list(kubernetes.problems({**deployment, "spec": deployment["spec"] | change}, version))
    removed = {
        "apiVersion": "autoscaling/v2beta2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
    }
    assert list(kubernetes.problems(removed, version))
    assert list(kubernetes.problems({**deployment, "kind": "Deploymnet"}, version))


def _known(folder: Path) -> crds.Crds:
    crd: Any = copy.deepcopy(CRD)
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = SCHEMA
    (folder / "thing.yaml").write_text(yaml.safe_dump(crd))
    return crds.load(folder)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"most": 1, "port": "http", "free": {"any": 1}, "named": {"a": "b"}}, None),
        ({"most": 1, "port": 8000}, None),
        ({"most": 0}, "least is above most"),  # by its default
        ({"most": "1"}, "is not of type"),
        ({"mots": 1}, "mots"),
        ({"most": 1, "port": 1.5}, "is not of type"),
        ({"most": 1, "named": {"a": 1}}, "is not of type"),
    ],
)
def test_fields_types_defaults_and_rules_of_a_crd(tmp_path: Path, spec: Object, said: str | None) -> None:
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec}
    found = [problem.message for problem in _known(tmp_path).problems(thing)]
    assert found == [] if said is None else said in found[0]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_real_crds_take_the_chart(tools: Path, scenario: str) -> None:
    known = crds.load(CRDS)
    custom = [part for part in objects(scenario) if known.knows(part)]
    assert [str(problem) for part in custom for problem in known.problems(part)] == []
    assert known.unevaluated == set()
    for part in custom:
        assert list(known.problems({**part, "spec": part["spec"] | {"planted": 1}}))


def test_the_load_test_is_applied_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*map(str, LOADTEST)]) == 0, capsys.readouterr().out
    assert main([str(LOADTEST[1])]) == 1
    assert "nothing provides PersistentVolumeClaim halimede-load-runs" in capsys.readouterr().out


def test_what_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("a: [", "- 1"):
        (tmp_path / "x.yaml").write_text(text)
        assert main([str(tmp_path / "x.yaml")]) == 2
        assert "x.yaml" in capsys.readouterr().err
    assert main([str(tmp_path / "none.yaml")]) == 2
