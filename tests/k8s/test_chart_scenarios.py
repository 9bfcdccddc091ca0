"""What each scenario of the chart must contain, and what the chart refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.charts import BIN, CHART, SCENARIOS, Refused, objects, one, pod, triton
from tests.paths import ROOT

PARSE = "import json, sys, launch; o = launch.parse(sys.argv[1:]); print(json.dumps([o.models, o.extra]))"


def _parsed(arguments: list[str]) -> tuple[list[str], list[str]]:
    command = [sys.executable, "-c", PARSE, *arguments]
    done = subprocess.run(command, cwd=ROOT / "server", capture_output=True, text=True, check=True)
    models, extra = json.loads(done.stdout)
    return models, extra


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_launcher_takes_its_arguments(scenario: str) -> None:
    container = triton(objects(scenario))
    models, extra = _parsed(container["args"])
    probe = container["readinessProbe"]
    asked = probe["exec"]["command"] if "exec" in probe else probe["httpGet"]["path"].split("/")
    assert set(models) <= set(asked)
    assert any("model-repository" in flag for flag in extra)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_grace_period_is_long_enough_for_the_drain(scenario: str) -> None:
    found = objects(scenario)
    drain = triton(found)["lifecycle"]["preStop"]["exec"]["command"]
    subprocess.run(
        [sys.executable, ROOT / "server" / "drain.py", *drain[2:], "--help"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = int(drain[-1].partition("=")[2])
    assert pod(found)["terminationGracePeriodSeconds"] > seconds + 30
    assert one(found, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_mount_has_a_volume_and_the_root_is_read_only(scenario: str) -> None:
    pods = [template["spec"] for template in _templates(objects(scenario))]
    assert len(pods) == {"tls": 2, "routes": 5}.get(scenario, 3)
    for spec in pods:
        assert not spec["automountServiceAccountToken"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}
            assert len({mount["mountPath"] for mount in container["volumeMounts"]}) == len(
                container["volumeMounts"]
            )
            assert container["securityContext"]["readOnlyRootFilesystem"]


def test_a_gpu_is_asked_for_once_for_each_replica() -> None:
    found = objects("gpu")
    assert triton(found)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(found)["runtimeClassName"] == "nvidia"
    assert pod(found)["tolerations"][0]["key"] == "nvidia.com/gpu"
    (build,) = pod(found)["initContainers"]
    assert build["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_loading_server_is_left_alone_and_one_that_is_not_ready_is_not_killed(scenario: str) -> None:
    container = triton(objects(scenario))
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 900
    live, ready = container["livenessProbe"], container["readinessProbe"]
    asked = [[probe.get(how) for how in ("httpGet", "exec", "grpc")] for probe in (live, ready)]
    assert any(asked[0])
    assert any(asked[1])
    assert asked[0] != asked[1]


def test_keys_come_from_secrets_and_are_in_no_argument() -> None:
    container = triton(objects("tls"))
    env = {one["name"]: one for one in container["env"]}
    assert env["HALIMEDE_API_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "halimede-keys", "key": "api"}
    assert env["HALIMEDE_ADMIN_KEY"]["valueFrom"]["secretKeyRef"]["key"] == "admin"
    assert "--grpc-restricted-protocol=inference:halimede-key=$(HALIMEDE_API_KEY)" in container["args"]


def test_nothing_leaves_an_air_gapped_pod() -> None:
    found = objects("air-gapped")
    assert one(found, "NetworkPolicy")["spec"]["egress"] == []
    assert pod(found)["volumes"][0]["image"]["reference"].startswith("registry.example.internal/")


def test_the_releases_own_pods_are_always_clients() -> None:
    found = objects("routes", "networkPolicy.clients[0].podSelector.matchLabels.app=web")
    ingress = one(found, "NetworkPolicy")["spec"]["ingress"]
    (own,) = [
        rule["from"][0]["podSelector"]
        for rule in ingress
        if {"port": "grpc", "protocol": "TCP"} in rule["ports"]
        and "matchExpressions" in rule["from"][0]["podSelector"]
    ]
    admitted = set(own["matchExpressions"][0]["values"])
    labels = [one_pod["metadata"]["labels"] for one_pod in _templates(found)]
    asking = [found for found in labels if found["app.kubernetes.io/component"] != "server"]
    assert len(asking) == 4
    for found_labels in asking:
        assert own["matchLabels"].items() <= found_labels.items()
        assert found_labels["app.kubernetes.io/component"] in admitted


def _templates(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The templates of Pods, and the Pods of the helm tests."""
    controllers = [one["spec"]["template"] for one in found if one["kind"] in {"Deployment", "Job"}]
    return [*controllers, *(one for one in found if one["kind"] == "Pod")]


def test_a_chart_of_another_version_rolls_no_pod(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    about = chart / "Chart.yaml"
    about.write_text(re.sub(r"(?m)^version: .*$", "version: 9.9.9", about.read_text("utf-8")))
    command = [str(BIN / "helm4"), "template", "halimede", str(chart), "--namespace", "serving"]
    command += ["--kube-version", "1.34.0"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    other = [found for found in yaml.safe_load_all(text) if found]
    ours = one(objects(), "Deployment")["spec"]["template"]
    assert one(other, "Deployment")["spec"]["template"] == ours


def test_an_endpoint_picker_reads_the_metrics() -> None:
    clients = one(objects("routes"), "NetworkPolicy")["spec"]["ingress"][0]
    assert {"port": "metrics", "protocol": "TCP"} in clients["ports"]


def test_connections_end_so_that_clients_find_new_replicas() -> None:
    assert "--grpc-max-connection-age=300000" in triton(objects())["args"]
    without = triton(objects(None, "server.grpcConnectionAgeSeconds=0"))["args"]
    assert not any("connection-age" in flag for flag in without)


def test_keda_asks_for_this_release_alone() -> None:
    triggers = one(objects("keda"), "ScaledObject")["spec"]["triggers"]
    assert [trigger["name"] for trigger in triggers] == ["in-flight", "waiting", "kv-cache", "ttft"]
    for trigger in triggers:
        assert 'namespace="serving",pod=~"halimede-[a-z0-9]+-[a-z0-9]+"' in trigger["metadata"]["query"]
    assert "replicas" not in one(objects("keda"), "Deployment")["spec"]


def test_keda_does_not_shrink_while_it_is_blind() -> None:
    spec = one(objects("keda"), "ScaledObject")["spec"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert [trigger["metadata"]["ignoreNullValues"] for trigger in spec["triggers"]] == ["false"] * 4


def test_an_hpa_knows_our_metrics_and_the_adapter_gives_them() -> None:
    found = objects("multi-model")
    asked = [m["pods"]["metric"]["name"] for m in one(found, "HorizontalPodAutoscaler")["spec"]["metrics"]]
    assert len(asked) == 4
    rules = one(found, "ConfigMap", "halimede-adapter-rules")["data"]["config.yaml"]
    assert all(f"name: {{as: {name}}}" in rules for name in asked)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["models.source.kind=ociImage"], "ociImage.reference"),
        (["models.source.kind=s3", "models.source.url=https://x"], "models.source.url"),
        (["tls.enabled=true"], "tls.secretName"),
        (["access.apiKey.enabled=true"], "access.apiKey.secretName"),
        (["autoscaling.minReplicas=9"], "autoscaling.minReplicas: 9"),
        (["terminationGracePeriodSeconds=30"], "must be at least 345"),
        (["podDisruptionBudget.minAvailable=1"], "both minAvailable and maxUnavailable"),
        (["gateway.enabled=true"], "gateway.parentRefs"),
        (["service.http=false", "ingress.enabled=true"], "service.http"),
        (["device=tpu"], "device"),
        (["replicas=-1"], "replicas"),
        (["models.serve={}"], "serve"),
        (["image.digest=latest"], "digest"),
        (["autoscaling.targets.kvCacheUsage=80"], "kvCacheUsage"),
        (["relicas=3"], "relicas"),
        (["probes.startup.secs=3"], "secs"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: list[str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        objects(None, *settings)


def test_image_volumes_need_a_kubernetes_that_has_them() -> None:
    with pytest.raises(Refused, match=r"1\.33 or newer"):
        objects("air-gapped", kube="1.32.0")


def test_every_value_is_in_the_schema_and_described() -> None:
    def walk(part: dict[str, Any]) -> None:
        assert part["description"]
        if "properties" in part:
            assert part["additionalProperties"] is False
            for inner in part["properties"].values():
                walk(inner)

    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    for part in schema["properties"].values():
        walk(part)
