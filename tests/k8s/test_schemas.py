"""The chart is what every supported Kubernetes and the CRDs take, and what they do not take is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.k8s.charts import SCENARIOS, Refused, objects, one
from tests.k8s.schemas import VERSIONS, Object, is_custom, refused, refused_by_crd
from tests.paths import ROOT

LOADTEST = [ROOT / "k8s" / "manifests" / "loadtest" / name for name in ("halimede.yaml", "reader.yaml")]
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kubernetes_takes_the_chart(tools: Path, scenario: str, version: str) -> None:
    if scenario == "air-gapped" and version < "1.33":
        with pytest.raises(Refused, match=r"1\.33 or newer"):
            objects(scenario, kube=f"{version}.0")
        return
    found = [part for part in objects(scenario, kube=f"{version}.0") if not is_custom(part)]
    assert "Deployment" in {part["kind"] for part in found}
    assert [problem for part in found for problem in refused(part, version)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_the_load_test_as_it_is(version: str) -> None:
    found = [part for file in LOADTEST for part in yaml.safe_load_all(file.read_text()) if part]
    assert len(found) == 7
    assert [problem for part in found for problem in refused(part, version)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_unknown_fields_types_and_kinds_are_found(tools: Path, version: str) -> None:
    deployment = one(objects("cpu"), "Deployment")
    for change in ({"replicsa": 2}, {"replicas": "two"}):
        assert refused({**deployment, "spec": deployment["spec"] | change}, version)
    removed = {
        "apiVersion": "autoscaling/v2beta2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
    }
    assert refused(removed, version)
    assert refused({**deployment, "kind": "Deploymnet"}, version)


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
def test_fields_types_defaults_and_rules_of_a_crd(spec: Object, said: str | None) -> None:
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec}
    found = refused_by_crd(thing, SCHEMA)
    assert found == [] if said is None else said in found[0]


@pytest.mark.parametrize("scenario", ["keda", "monitoring", "multi-model", "routes"])
def test_real_crds_take_the_chart(tools: Path, scenario: str) -> None:
    custom = [part for part in objects(scenario) if is_custom(part)]
    assert custom
    assert [problem for part in custom for problem in refused_by_crd(part)] == []
    for part in custom:
        assert refused_by_crd({**part, "spec": part["spec"] | {"planted": 1}})
