"""The PromQL of the chart's autoscalers, for a release in the namespace of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from tests.k8s.charts import NAMESPACE, objects, one


def queries(mode: str) -> dict[str, str]:
    """By metric of the HPA, or by trigger of KEDA."""
    found = objects(None, f"autoscaling.mode={mode}", "autoscaling.adapterRules=true")
    if mode == "hpa":
        return adapter_rules(found)
    triggers = one(found, "ScaledObject")["spec"]["triggers"]
    return {trigger["name"]: trigger["metadata"]["query"] for trigger in triggers}


def adapter_rules(found: Sequence[dict[str, Any]]) -> dict[str, str]:
    """By metric: the templates of the prometheus-adapter's configuration, filled for the namespace."""
    texts = [text for one in found if one["kind"] == "ConfigMap" for text in one["data"].values()]
    rules = [rule for text in texts if "metricsQuery" in text for rule in yaml.safe_load(text)["rules"]]
    return {rule["name"]["as"]: _filled(rule) for rule in rules}


def _filled(rule: dict[str, Any]) -> str:
    query = str(rule["metricsQuery"]).replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
    return query.replace("<<.LabelMatchers>>", f'namespace="{NAMESPACE}"').replace("<<.GroupBy>>", "pod")
