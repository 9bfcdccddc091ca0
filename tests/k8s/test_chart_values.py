"""Values that meet what the chart says itself: each key once, and nothing that selectors go by is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.contract import rows
from tests.k8s.charts import CHART, Strict, objects, one, pod, triton

NAME = r"app\.kubernetes\.io/name"
VERSION = r"app\.kubernetes\.io/version"
EVERYTHING = (
    "loadtest.enabled=true",
    "monitoring.scrape.kind=ServiceMonitor",
    "monitoring.rules.enabled=true",
    "monitoring.dashboards.enabled=true",
)


def _labels(found: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [one["metadata"]["labels"] for one in found]


def _pod_labels(found: list[dict[str, Any]]) -> dict[str, str]:
    labels: dict[str, str] = one(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    return labels


def test_a_key_that_stands_twice_is_noticed() -> None:
    with pytest.raises(yaml.YAMLError, match="'a' is there twice"):
        yaml.load("{a: 1, b: 2, a: 3}", Strict)


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_the_same_label_for_all_and_for_pods_is_the_pods(helm: str) -> None:
    settings = ("commonLabels.team=a", "commonLabels.cost=1x", "podLabels.team=b", "monitoring.labels.team=c")
    found = objects(None, *EVERYTHING, *settings, helm=helm)
    assert _pod_labels(found)["team"] == "b"
    assert _pod_labels(found)["cost"] == "1x"
    kinds = {one["kind"]: one["metadata"]["labels"]["team"] for one in found}
    assert {kind for kind, team in kinds.items() if team == "c"} == {"ServiceMonitor", "PrometheusRule"}
    assert {labels["cost"] for labels in _labels(found)} == {"1x"}


@pytest.mark.parametrize("values", ["commonLabels", "podLabels", "monitoring.labels"])
def test_labels_of_selectors_cannot_be_overridden(values: str) -> None:
    found = objects(None, *EVERYTHING, f"{values}.{NAME}=other", f"{values}.{VERSION}=7x")
    assert {labels["app.kubernetes.io/name"] for labels in _labels(found)} == {"halimede"}
    selector = one(found, "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= _pod_labels(found).items()
    versions = {labels["app.kubernetes.io/version"] for labels in [*_labels(found), _pod_labels(found)]}
    assert "7x" in versions


def test_the_threads_have_the_limits_of_the_engines_setting() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    threads = schema["properties"]["server"]["properties"]["threads"]
    (setting,) = (row for row in rows("settings", "engine") if row["name"] == "threads")
    assert (threads["minimum"], threads["maximum"]) == (setting["least"], setting["most"])


def test_annotations_and_node_selectors_are_merged() -> None:
    found = objects(None, "podAnnotations.checksum/settings=x", r"nodeSelector.kubernetes\.io/os=windows")
    annotations = one(found, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert len(annotations["checksum/settings"]) == 64
    assert pod(found)["nodeSelector"]["kubernetes.io/os"] == "windows"


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        ((), "--threads=2"),
        (("resources.limits.cpu=1500m",), "--threads=2"),
        (("resources.limits.cpu=4",), "--threads=4"),
        (("resources.limits.cpu=0.5",), "--threads=1"),
        (("resources.limits.cpu=3", "resources.requests.cpu=1"), "--threads=3"),
        (("resources.limits.cpu=4", "server.threads=7"), "--threads=7"),
        (("resources.requests.cpu=null",), None),
    ],
)
@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_threads_are_the_cores_of_the_limit_or_of_the_request(
    settings: tuple[str, ...], threads: str | None, helm: str
) -> None:
    arguments = triton(objects(None, *settings, helm=helm))["args"]
    assert [one for one in arguments if one.startswith("--threads")] == ([threads] if threads else [])


@pytest.mark.parametrize(
    ("resource", "taints"),
    [
        ("nvidia.com/gpu", ["nvidia.com/gpu"]),
        ("nvidia.com/mig-1g.5gb", ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb"]),
        ("amd.com/gpu", ["amd.com/gpu"]),
    ],
)
def test_a_part_of_a_gpu_goes_to_nodes_with_the_taint_of_gpus(resource: str, taints: list[str]) -> None:
    found = objects("gpu", f"gpu.resourceName={resource}".replace("1g.5gb", r"1g\.5gb"))
    assert [one["key"] for one in pod(found)["tolerations"]] == taints
    assert resource in triton(found)["resources"]["limits"]


def _job(*settings: str) -> dict[str, Any]:
    (found,) = [one for one in objects(None, "loadtest.enabled=true", *settings) if one["kind"] == "Job"]
    return found


@pytest.mark.parametrize(
    "setting", ["loadtest.workers=3", "loadtest.image=other:2", "service.grpcPort=9001", "loadtest.profile=a"]
)
def test_a_load_test_that_changes_is_another_job(setting: str) -> None:
    """Of the same name it would be refused: a Job's template cannot be changed."""
    first, same, other = _job(), _job("replicas=3"), _job(setting)
    assert first == same
    assert first["metadata"]["name"] != other["metadata"]["name"]
    assert len(other["metadata"]["name"]) <= 63


@pytest.mark.parametrize(
    ("source", "container"),
    [
        (("models.source.kind=http", "models.source.url=https://host/models"), "deliver"),
        (("models.source.kind=build",), "build"),
    ],
)
def test_what_fetches_models_has_an_environment_and_volumes_of_its_own(
    source: tuple[str, ...], container: str
) -> None:
    settings = (
        "models.extraEnv[0].name=HTTPS_PROXY",
        "models.extraEnv[0].value=http://proxy:3128",
        "models.extraVolumes[0].name=ca",
        "models.extraVolumes[0].configMap.name=company-ca",
        "models.extraVolumeMounts[0].name=ca",
        "models.extraVolumeMounts[0].mountPath=/etc/ca",
        "extraEnv[0].name=OF_THE_SERVER",
        "extraEnv[0].value=x",
    )
    found = objects(None, *source, *settings)
    (fetches,) = pod(found)["initContainers"]
    assert fetches["name"] == container
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in fetches["env"]
    assert {"name": "ca", "mountPath": "/etc/ca"} in fetches["volumeMounts"]
    assert {"name": "ca", "configMap": {"name": "company-ca"}} in pod(found)["volumes"]
    server = triton(found)
    assert [one["name"] for one in server["env"] if one["name"] in {"HTTPS_PROXY", "OF_THE_SERVER"}] == [
        "OF_THE_SERVER"
    ]
    assert "ca" not in [mount["name"] for mount in server["volumeMounts"]]
