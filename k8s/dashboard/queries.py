"""PromQL over what the dashboard's variables choose. Rates are summed over Pods before they are divided."""

from __future__ import annotations

from typing import Final

# Grafana puts a regular expression in place of each variable; `model` is a name without its step.
PODS: Final = 'namespace=~"$namespace",job=~"$job",pod=~"$pod"'
ENGINES: Final = f'{PODS},model=~"(?:$model)_engine"'
STEPS: Final = f'{PODS},model=~"(?:$model)_(?:tokenizer|engine|detokenizer)"'
# What the recording rules leave: they sum over Pods.
RECORDED: Final = 'namespace=~"$namespace",job=~"$job",model=~"(?:$model)_engine"'
# One server, in Kubernetes or without it.
POD: Final = "namespace, job, pod, instance"


def rate(metric: str, *labels: str, of: str = ENGINES) -> str:
    return f"rate({selected(metric, *labels, of=of)}[$__rate_interval])"


def selected(metric: str, *labels: str, of: str = ENGINES) -> str:
    return f"{metric}{{{','.join((of, *labels))}}}"


def total(vector: str, by: str = "") -> str:
    return f"sum by ({by}) ({vector})" if by else f"sum({vector})"


def ratio(above: str, below: str) -> str:
    """No value where there is nothing to divide by, and no NaN."""
    return f"{above} / ({below} > 0)"


def quantile(share: float, histogram: str, by: str = "model") -> str:
    grouped = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {total(rate(f'{histogram}_bucket'), grouped)})"


def mean(histogram: str, by: str = "model") -> str:
    return ratio(total(rate(f"{histogram}_sum"), by), total(rate(f"{histogram}_count"), by))
