"""Rows about replicas and what they run on."""

from __future__ import annotations

from typing import Final

from k8s.dashboard.panels import Kind, Panel, Query
from k8s.dashboard.queries import POD, PODS, rate, ratio, selected, total

_NAMED: Final = "{{pod}} {{instance}}"

REPLICAS: Final = (
    Panel(
        "Up",
        "Whether Prometheus could scrape it. Triton answers once its models are loaded.",
        "short",
        (Query(f"max by ({POD}) (up{{{PODS}}})", _NAMED),),
        Kind.STATES,
        width=12,
        states=(("down", "red"), ("up", "green")),
    ),
    Panel(
        "Models loaded",
        "Triton's own series of a model go when it is unloaded, ours stay.",
        "short",
        (
            Query(
                f"group by ({POD}, model) ({selected('nv_inference_request_success')})"
                f" or 0 * group by ({POD}, model) ({selected('halimede_num_requests_running')})",
                f"{_NAMED} {{{{model}}}}",
            ),
        ),
        Kind.STATES,
        width=12,
        states=(("unloaded", "red"), ("loaded", "green")),
    ),
)


def _container(vector: str) -> str:
    """Of the server's containers alone: that of kubelet's cAdvisor has no job."""
    return f"max by (namespace, pod) ({vector}) and on (namespace, pod) up{{{PODS}}}"


_TRITON: Final = 'namespace=~"$namespace",pod=~"$pod",container="triton"'

MACHINE: Final = (
    Panel(
        "CPU of the node",
        "As Triton sees it: of all the node's cores, whoever uses them.",
        "percentunit",
        (Query(f"max by ({POD}) (nv_cpu_utilization{{{PODS}}})", _NAMED),),
        width=6,
    ),
    Panel(
        "Memory of the node",
        "As Triton sees it.",
        "percentunit",
        (
            Query(
                f"max by ({POD}) (nv_cpu_memory_used_bytes{{{PODS}}} / nv_cpu_memory_total_bytes{{{PODS}}})",
                _NAMED,
            ),
        ),
        width=6,
    ),
    Panel(
        "CPU of the container",
        "Cores in use. From the kubelet's cAdvisor.",
        "short",
        (
            Query(
                _container(f"rate(container_cpu_usage_seconds_total{{{_TRITON}}}[$__rate_interval])"),
                "{{pod}}",
            ),
        ),
        width=6,
    ),
    Panel(
        "Memory of the container",
        "HalimedeMemoryGrowing looks at these. From the kubelet's cAdvisor.",
        "bytes",
        (
            Query(_container(f"container_memory_working_set_bytes{{{_TRITON}}}"), "{{pod}}"),
            Query(_container(f"container_spec_memory_limit_bytes{{{_TRITON}}} > 0"), "{{pod}} limit"),
        ),
        width=6,
    ),
)


def _gpu(title: str, about: str, unit: str, vector: str, limit: float | None = None) -> Panel:
    return Panel(title, about, unit, (Query(vector, "{{pod}} {{gpu_uuid}}"),), width=6, limit=limit)


GPU: Final = (
    _gpu("GPU in use", "", "percentunit", f"max by ({POD}, gpu_uuid) (nv_gpu_utilization{{{PODS}}})"),
    _gpu(
        "GPU memory",
        "HalimedeGpuMemoryHigh fires above 95 %.",
        "percentunit",
        f"max by ({POD}, gpu_uuid)"
        f" (nv_gpu_memory_used_bytes{{{PODS}}} / nv_gpu_memory_total_bytes{{{PODS}}})",
        limit=0.95,
    ),
    _gpu(
        "GPU temperature",
        "From the DCGM exporter, of the GPUs that our servers use.",
        "celsius",
        f"0 * max by ({POD}, gpu_uuid) (nv_gpu_utilization{{{PODS}}}) + on (gpu_uuid) group_left () "
        'max by (gpu_uuid) (label_replace(DCGM_FI_DEV_GPU_TEMP, "gpu_uuid", "$1", "UUID", "(.+)"))',
        limit=85,
    ),
    Panel(
        "Energy for each generated token",
        "Of all GPUs and models chosen.",
        "joule",
        (
            Query(
                ratio(
                    total(rate("nv_energy_consumption", of=PODS)),
                    total(rate("halimede_generation_tokens_total")),
                )
            ),
        ),
        width=6,
    ),
)
