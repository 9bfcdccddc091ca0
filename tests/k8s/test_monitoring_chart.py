"""What the chart gives to Prometheus and Grafana: rules with its numbers, a monitor with the right labels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.core.contract import METRICS
from engine.edge.metrics import GAP, TTFT
from tests.k8s.charts import CHART, RULES, Refused, objects, one, pod, triton
from tests.k8s.schemas import refused_by_crd

ALL = (
    "monitoring.scrape.kind=ServiceMonitor",
    "monitoring.rules.enabled=true",
    "monitoring.dashboards.enabled=true",
)
KINDS = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
Rule = dict[str, Any]


def rules(found: list[dict[str, Any]]) -> dict[str, Rule]:
    """By name."""
    groups = one(found, "PrometheusRule")["spec"]["groups"]
    return {rule.get("alert") or rule["record"]: rule for group in groups for rule in group["rules"]}


def endpoint(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    spec = one(found, kind)["spec"]
    (only,) = spec["podMetricsEndpoints" if kind == "PodMonitor" else "endpoints"]
    return dict(only)


def checked(tools: Path, folder: Path, spec: object) -> subprocess.CompletedProcess[str]:
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(spec), "utf-8")
    command = [str(tools / "promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_monitoring_objects_are_off_by_default() -> None:
    found = objects()
    assert not KINDS & {item["kind"] for item in found}
    assert "halimede-dashboards" not in {item["metadata"]["name"] for item in found}


@pytest.mark.parametrize("settings", [ALL, (*ALL, "device=gpu", "monitoring.rules.waitingPerReplica=12")])
def test_promtool_takes_the_rendered_rules(tools: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    done = checked(tools, tmp_path, one(objects(None, *settings), "PrometheusRule")["spec"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_a_planted_fault(tools: Path, tmp_path: Path) -> None:
    spec = one(objects(None, *ALL), "PrometheusRule")["spec"]
    spec["groups"][0]["rules"][0]["expr"] += " +"
    assert checked(tools, tmp_path, spec).returncode != 0


def test_every_rule_is_of_this_release_alone() -> None:
    found = rules(objects("monitoring"))
    assert len(found) == 37
    for name, rule in found.items():
        jobs = re.findall(r"[^{,]*,?job=\"[^\"]*\"", rule["expr"])
        assert jobs, name
        assert set(jobs) == {'namespace="serving",job="halimede"'} or name == "HalimedeMemoryGrowing", name
        assert 'job="halimede"' not in rule["expr"].replace('namespace="serving",job="halimede"', ""), name


def test_the_numbers_are_those_of_the_values() -> None:
    found = rules(objects("monitoring"))
    assert 'le=~"1([.]0)?"' in found["halimede:ttft_slow:ratio_rate5m"]["expr"]
    assert 'le="0.5"' in found["halimede:gap_slow:ratio_rate5m"]["expr"]
    assert "14.4 * (1 - 0.995)" in found["HalimedeTtftBurnFast"]["expr"]
    assert "14.4 * (1 - 0.99)" in found["HalimedeGapBurnFast"]["expr"]
    assert "longer than 1 s " in found["HalimedeTtftBurnFast"]["annotations"]["description"]
    assert "99.5 % do not" in found["HalimedeTtftBurnSlow"]["annotations"]["description"]
    assert "> 8 " in found["HalimedeQueueGrowing"]["expr"]
    assert found["HalimedeQueueGrowing"]["labels"] == {"severity": "warning", "team": "llm"}
    url = "https://git.example.org/halimede/blob/main/docs/runbooks/HalimedeQueueGrowing.md"
    assert found["HalimedeQueueGrowing"]["annotations"]["runbook_url"] == url
    assert "HalimedeTraceSpansDropped" not in found


@pytest.mark.parametrize("bound", ["1", "1.0"])
def test_a_whole_bound_is_found_as_prometheus_2_and_3_name_it(
    bound: str, tools: Path, tmp_path: Path
) -> None:
    spec = one(objects("monitoring"), "PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    name = "halimede_time_to_first_token_seconds"
    labels = 'namespace="serving",job="halimede",model="m_engine"'
    expected = {"labels": f"halimede:ttft_slow:ratio_rate5m{{{labels}}}", "value": 0.25}
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f'{name}_bucket{{{labels},le="{bound}"}}', "values": "0+45x10"},
            {"series": f"{name}_count{{{labels}}}", "values": "0+60x10"},
        ],
        "promql_expr_test": [
            {"expr": "halimede:ttft_slow:ratio_rate5m", "eval_time": "10m", "exp_samples": [expected]}
        ],
    }
    file = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(file), "utf-8")
    command = [str(tools / "promtool"), "test", "rules", str(tmp_path / "test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_with_the_defaults_the_rules_are_those_of_the_files() -> None:
    files = [yaml.safe_load(path.read_text("utf-8")) for path in RULES.glob("*.yaml")]
    groups = {group["name"]: group for file in files for group in file["groups"]}
    assert len(groups) == 7
    made = one(objects(None, *ALL, "device=gpu"), "PrometheusRule")["spec"]["groups"]
    plain = json.loads(json.dumps(made).replace(r"namespace=\"serving\",", ""))
    assert {group["name"]: group for group in plain} == groups


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("slo-ttft.yaml", "(1 - 0.99)", "(1 - 0.995)"),
        ("requests.yaml", "} > 4", "} > 5"),
        ("servers.yaml", 'job="halimede"', 'job="server"'),
    ],
)
def test_a_number_that_a_rule_file_no_longer_has_is_noticed(
    file: str, old: str, new: str, tools: Path, tmp_path: Path
) -> None:
    chart = shutil.copytree(CHART, tmp_path / "chart")
    rule_file = chart / "files" / "rules" / file
    text = rule_file.read_text("utf-8")
    assert old in text
    rule_file.write_text(text.replace(old, new), "utf-8")
    command = [
        str(tools / "helm4"),
        "template",
        "halimede",
        str(chart),
        "--set",
        "monitoring.rules.enabled=true",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"files/rules/{file}: has no" in done.stderr


def test_rules_of_gpus_are_for_gpus() -> None:
    assert "HalimedeGpuHot" in rules(objects(None, *ALL, "device=gpu"))
    assert "HalimedeGpuHot" not in rules(objects(None, *ALL))


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_what_is_scraped_has_the_labels_that_rules_and_autoscalers_ask_by(
    kind: str, tools: Path, tmp_path: Path
) -> None:
    found = objects(
        None, *ALL, f"monitoring.scrape.kind={kind}", "fullnameOverride=llm", "monitoring.job=models"
    )
    monitor = {item["kind"]: item for item in found if item["kind"] == kind}[kind]
    (made,) = monitor["spec"]["podMetricsEndpoints" if kind == "PodMonitor" else "endpoints"]
    labels = discovered(tools, tmp_path, made["relabelings"])
    assert labels["job"] == "models"
    assert labels["namespace"] == "serving"
    assert re.fullmatch("llm-[a-z0-9]+-[a-z0-9]+", labels["pod"])
    spec = {item["kind"]: item for item in found if item["kind"] == "PrometheusRule"}["PrometheusRule"][
        "spec"
    ]
    assert 'namespace="serving",job="models"' in json.dumps(spec).replace("\\", "")


def discovered(tools: Path, folder: Path, relabelings: list[dict[str, Any]]) -> dict[str, str]:
    """The labels of a Pod of Kubernetes once Prometheus has applied the monitor's relabelings."""
    pod_labels = {
        "__meta_kubernetes_namespace": "serving",
        "__meta_kubernetes_pod_name": "llm-5d4f9c7b6d-x2x7k",
    }
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    (folder / "pods.json").write_text(json.dumps([{"targets": ["10.0.0.7:8002"], "labels": pod_labels}]))
    scrape: dict[str, Any] = {
        "job_name": "podMonitor/serving/llm/0",
        "file_sd_configs": [{"files": [str(folder / "pods.json")]}],
        "relabel_configs": [
            {names.get(key, key): value for key, value in rule.items()} for rule in relabelings
        ],
    }
    (folder / "prometheus.json").write_text(json.dumps({"scrape_configs": [scrape]}))
    command = [str(tools / "promtool"), "check", "service-discovery", "--timeout=2s"]
    command += [str(folder / "prometheus.json"), scrape["job_name"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (target,) = json.loads(done.stdout)
    return dict(target["labels"])


def test_a_monitor_finds_the_port_of_the_metrics_once() -> None:
    found = objects("monitoring")
    assert endpoint(found, "PodMonitor")["port"] in {port["name"] for port in triton(found)["ports"]}
    selector = one(found, "PodMonitor")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= one(found, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for headless in ("true", "false"):
        found = objects(None, *ALL, f"service.headless={headless}")
        services = [item for item in found if item["kind"] == "Service"]
        selected = [item for item in services if selector.items() <= item["metadata"]["labels"].items()]
        ports = [port["name"] for item in selected for port in item["spec"]["ports"]]
        assert ports.count(endpoint(found, "ServiceMonitor")["port"]) == 1


def test_prometheus_may_come_in_and_finds_the_container_that_the_rules_name() -> None:
    found = objects("monitoring")
    ingress = one(found, "NetworkPolicy")["spec"]["ingress"]
    (rule,) = [rule for rule in ingress if {"port": "metrics", "protocol": "TCP"} in rule["ports"]]
    (peer,) = rule["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "observability"}
    asked = set(re.findall(r'container="(\w+)"', rules(found)["HalimedeMemoryGrowing"]["expr"]))
    assert asked == {pod(found)["containers"][0]["name"]}


def test_the_sidecar_finds_the_dashboards() -> None:
    found = one(objects("monitoring"), "ConfigMap", "halimede-dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Halimede"}
    board = json.loads(found["data"]["halimede.json"])
    file = json.loads((CHART / "files" / "dashboards" / "halimede.json").read_text("utf-8"))
    objectives = {one["name"]: one["query"] for one in board["templating"]["list"]}
    assert (objectives["ttft_objective"], objectives["gap_objective"]) == ("0.995", "0.99")
    assert board["panels"] == file["panels"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["monitoring.scrape.kind=Probe"], "kind"),
        (["monitoring.scrape.kind=PodMonitor", "monitoring.scrape.timeoutSeconds=20"], "timeoutSeconds: 20"),
        (["monitoring.scrape.kind=PodMonitor", "networkPolicy.monitoring=null"], r"networkPolicy.monitoring"),
        (["monitoring.rules.objectives.ttft.seconds=3"], "seconds"),
        (["monitoring.rules.objectives.gap.ratio=99"], "ratio"),
        (
            ["monitoring.rules.enabled=true", "monitoring.rules.disabled={HalimedeSlow}"],
            "no alert HalimedeSlow",
        ),
        (["monitoring.rules.waitingPerReplica=0"], "waitingPerReplica"),
        (["monitoring.dashboards.label=a b"], "label"),
        (["monitoring.enabled=true"], "enabled"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: list[str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        objects(None, *settings)


@pytest.mark.parametrize(("name", "histogram"), [("ttft", TTFT), ("gap", GAP)])
def test_an_objective_can_only_be_a_bound_of_the_buckets(name: str, histogram: str) -> None:
    part = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    for key in ("monitoring", "rules", "objectives", name, "seconds"):
        part = part["properties"][key]
    assert part["enum"]
    assert set(part["enum"]) <= set(METRICS[histogram].buckets)


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_their_crds_take_them(kind: str) -> None:
    found = [item for item in objects(None, *ALL, f"monitoring.scrape.kind={kind}") if item["kind"] in KINDS]
    assert {item["kind"] for item in found} == {kind, "PrometheusRule"}
    assert [problem for item in found for problem in refused_by_crd(item)] == []
    for item in found:
        item["spec"]["planted"] = 1
        assert refused_by_crd(item)
