"""The chart's own HPA and ScaledObject, as rendered, with the PromQL behind each metric."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from k8s.autoscaling.objects import Unreadable, scaler
from k8s.autoscaling.scaler import Scaler
from k8s.autoscaling.strategies import CPU, gauge

CHART: Final = Path(__file__).parents[1] / "chart"
MODES: Final = ("hpa", "keda")
# What a prometheus-adapter gives for a gauge of ours when it is asked for a metric of pods.
_GAUGES: Final = ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc")


def scalers(helm: Path, cpu_request: float, settings: Sequence[str] = ()) -> Iterator[Scaler]:
    """With the HPA, then with KEDA. Raises Unreadable, also where the chart has neither."""
    for mode in MODES:
        objects = render(helm, [f"autoscaling.mode={mode}", "autoscaling.adapterRules=true", *settings])
        found = [one for one in objects if one["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}]
        if len(found) != 1:
            raise Unreadable(f"the chart with autoscaling.mode={mode} has {len(found)} autoscalers, not 1")
        yield scaler(found[0], queries(objects), cpu_request)


def render(helm: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """The chart's objects for the release and namespace `halimede`. Raises Unreadable."""
    command = [str(helm), "template", "halimede", str(CHART), "--namespace", "halimede"]
    for setting in settings:
        command += [_flag(setting), setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unreadable(f"{' '.join(command)}: {done.stderr}")
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def _flag(setting: str) -> str:
    """`--set` makes a string of 1.5."""
    number = re.fullmatch(r"\d+\.\d+", setting.partition("=")[2])
    return "--set-json" if number else "--set"


def queries(objects: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """PromQL by metric name: of the gauges, of CPU, and of the adapter rules among the objects."""
    known = {f"halimede_{name}": gauge(name) for name in _GAUGES} | {"cpu": CPU}
    for found in objects:
        for text in (found.get("data") or {}).values() if found["kind"] == "ConfigMap" else ():
            known |= _adapter_rules(text)
    return known


def _adapter_rules(text: str) -> dict[str, str]:
    """Of a prometheus-adapter's configuration: its templates filled for our namespace, by pod."""
    if "metricsQuery" not in text:
        return {}
    config = yaml.safe_load(text)
    rules = [*config.get("rules", []), *config.get("externalRules", [])]
    return {rule["name"]["as"]: _filled(rule) for rule in rules}


def _filled(rule: Mapping[str, Any]) -> str:
    series = re.match(r"[a-zA-Z_:]*", rule["seriesQuery"])
    query = rule["metricsQuery"].replace("<<.Series>>", series[0] if series else "")
    return str(query).replace("<<.LabelMatchers>>", 'namespace="halimede"').replace("<<.GroupBy>>", "pod")
