"""Every metric that a dashboard, a rule or a runbook may name, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import yaml

from engine.core.contract import METRICS
from engine.edge.metrics import PREFIX
from tests.k8s.charts import RULES

_OF_HISTOGRAMS: Final = ("_bucket", "_sum", "_count")
OURS: Final = frozenset(
    PREFIX + name + suffix
    for name, metric in METRICS.items()
    for suffix in (_OF_HISTOGRAMS if metric.kind == "histogram" else ("",))
)
# Of Triton 2.51 on a machine without a GPU; the live test finds each of them.
TRITON: Final = frozenset(
    {
        "nv_cpu_memory_total_bytes",
        "nv_cpu_memory_used_bytes",
        "nv_cpu_utilization",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_output_duration_us",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_pending_request_count",
        "nv_inference_queue_duration_us",
        "nv_inference_request_duration_us",
        "nv_inference_request_failure",
        "nv_inference_request_success",
        "nv_pinned_memory_pool_total_bytes",
        "nv_pinned_memory_pool_used_bytes",
    }
)
# Of Triton where there is a GPU, and of the DCGM exporter.
OF_GPUS: Final = frozenset(
    {
        "DCGM_FI_DEV_GPU_TEMP",
        "nv_energy_consumption",
        "nv_gpu_memory_total_bytes",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_power_limit",
        "nv_gpu_power_usage",
        "nv_gpu_utilization",
    }
)
# Of the kubelet's cAdvisor, for which a cluster is needed.
OF_KUBELET: Final = frozenset(
    {
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_oom_events_total",
        "container_spec_memory_limit_bytes",
    }
)
OF_PROMETHEUS: Final = frozenset({"ALERTS", "scrape_duration_seconds", "scrape_samples_scraped", "up"})


def rules() -> Iterator[dict[str, Any]]:
    for path in sorted(RULES.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            yield from group["rules"]


RECORDED: Final = frozenset(rule["record"] for rule in rules() if "record" in rule)
ALERTS: Final = tuple(rule["alert"] for rule in rules() if "alert" in rule)
ELSEWHERE: Final = OF_GPUS | OF_KUBELET
KNOWN: Final = OURS | TRITON | ELSEWHERE | OF_PROMETHEUS | RECORDED
