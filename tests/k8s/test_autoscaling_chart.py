"""The chart's autoscalers take what `k8s.autoscaling` writes, and ask only for metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.autoscaling import Demand, Replica, Run, values
from tests.k8s.charts import objects, one
from tests.k8s.metric_names import KNOWN
from tests.k8s.scaling_queries import adapter_rules, queries

REPLICA = Replica((Run(1.0, 4.0, 0.5), Run(2.38, 10.0, 0.6)), 2.0, ())


def planned(tmp_path: Path, mode: str, replica: Replica = REPLICA) -> list[dict[str, Any]]:
    file = tmp_path / f"{mode}.yaml"  # rendered once for each name
    file.write_text(values(replica, Demand(9, None, 0.2, 0.7, 1, mode), "sweep.json"))
    return objects(None, files=(file,))


def test_the_chart_takes_a_plan(tools: Path, tmp_path: Path) -> None:
    hpa = one(planned(tmp_path, "hpa"), "HorizontalPodAutoscaler")["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 8)
    targets = {m["pods"]["metric"]["name"]: m["pods"]["target"]["averageValue"] for m in hpa["metrics"]}
    assert targets == {
        "halimede_requests_in_flight": "3.4",
        "halimede_num_requests_waiting": "1.7",
        "halimede_kv_cache_usage_perc": "800m",
        "halimede_ttft_p95_seconds": "2000m",
    }
    keda = one(planned(tmp_path, "keda"), "ScaledObject")["spec"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (2, 8)
    thresholds = {trigger["name"]: trigger["metadata"]["threshold"] for trigger in keda["triggers"]}
    assert thresholds == {"in-flight": "3.4", "waiting": "1.7", "kv-cache": "0.8", "ttft": "2"}
    fixed = planned(tmp_path, "none")
    assert one(fixed, "Deployment")["spec"]["replicas"] == 8
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & {found["kind"] for found in fixed}


def test_a_target_that_is_null_is_not_looked_at(tools: Path, tmp_path: Path) -> None:
    full = Replica((Run(2.38, 10.0, 0.9),), None, ())
    keda = one(planned(tmp_path, "keda", full), "ScaledObject")["spec"]
    assert [trigger["name"] for trigger in keda["triggers"]] == ["in-flight", "waiting"]


def test_the_adapter_has_a_rule_for_every_metric_of_the_hpa(tools: Path) -> None:
    found = objects(None, "autoscaling.mode=hpa", "autoscaling.adapterRules=true")
    metrics = one(found, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert len(metrics) == 4
    assert [metric["pods"]["metric"]["name"] for metric in metrics] == list(adapter_rules(found))


@pytest.mark.parametrize("mode", ["hpa", "keda"])
def test_every_query_asks_for_series_that_there_are(tools: Path, mode: str) -> None:
    found = queries(mode)
    assert len(found) == 4
    for query in found.values():
        names = re.findall(r"\bhalimede_\w+", query)
        assert names
        assert set(names) <= KNOWN


def test_adapter_rules_are_filled_as_the_adapter_does() -> None:
    rule = {
        "seriesQuery": 'a{namespace!="",pod!=""}',
        "name": {"as": "b"},
        "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
    }
    config = {"kind": "ConfigMap", "data": {"config.yaml": yaml.safe_dump({"rules": [rule]})}}
    assert adapter_rules([config]) == {"b": 'sum(a{namespace="serving"}) by (pod)'}
