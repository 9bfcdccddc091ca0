"""Rows about the engine, and about objectives and alerts."""

from __future__ import annotations

from typing import Final

from k8s.dashboard.panels import Kind, Panel, Query
from k8s.dashboard.queries import POD, PODS, RECORDED, mean, rate, ratio, selected, total

_RUNNING: Final = "halimede_num_requests_running"
_WAITING: Final = "halimede_num_requests_waiting"
_ITL: Final = "halimede_inter_token_latency_seconds"
_KV: Final = "halimede_kv_cache_usage_perc"
_NAMED: Final = "{{pod}} {{instance}}"
_TEXT_STEPS: Final = f'{PODS},model=~"(?:$model)_(?:tokenizer|detokenizer)"'

ENGINE: Final = (
    Panel(
        "Running and waiting requests",
        "A running request holds a slot (setting `slots`), others wait (`max_queue` at most in a replica).",
        "short",
        (
            Query(total(selected(_RUNNING), "model"), "{{model}} running"),
            Query(total(selected(_WAITING), "model"), "{{model}} waiting"),
        ),
    ),
    Panel(
        "Batch of each replica",
        "Running requests: each is a row of the decode step.",
        "short",
        (Query(total(selected(_RUNNING), f"{POD}, model"), f"{_NAMED} {{{{model}}}}"),),
    ),
    Panel(
        "Requests for each replica",
        "Inside: what autoscalers look at first. Waiting: mean of 5 minutes, for HalimedeQueueGrowing.",
        "short",
        (
            Query(
                f"({total(selected(_RUNNING), 'model')} + {total(selected(_WAITING), 'model')})"
                f" / count by (model) (group by ({POD}, model) ({selected(_RUNNING)}))",
                "{{model}} inside",
            ),
            Query(
                f"max by (model) (halimede:requests_waiting:per_replica{{{RECORDED}}})", "{{model}} waiting"
            ),
        ),
    ),
    Panel(
        "KV cache in use",
        "What running requests fill; HalimedeKvCachePressure fires above 90 % of the mean.",
        "percentunit",
        (
            Query(f"avg by (model) ({selected(_KV)})", "{{model}} mean"),
            Query(f"max by (model) ({selected(_KV)})", "{{model}} fullest"),
        ),
        width=6,
        limit=0.9,
    ),
    Panel(
        "Generated tokens a second by replica",
        "",
        "short",
        (Query(total(rate("halimede_generation_tokens_total"), f"{POD}, model"), f"{_NAMED} {{{{model}}}}"),),
        width=6,
    ),
    Panel(
        "Time from token to token",
        "Mean, as they are computed: a decode step, and what of a prompt runs beside it.",
        "s",
        (Query(mean(_ITL), "{{model}}"),),
        width=6,
    ),
    Panel(
        "Time in the tokenizer and the detokenizer",
        "Mean, with Triton's own queue: of a request, and of a chunk of its answer.",
        "s",
        (
            Query(
                ratio(
                    f"1e-6 * {total(rate('nv_inference_request_duration_us', of=_TEXT_STEPS), 'model')}",
                    total(rate("nv_inference_request_success", of=_TEXT_STEPS), "model"),
                ),
                "{{model}}",
            ),
        ),
        width=6,
    ),
)


def _burn(name: str, what: str) -> Panel:
    queries = tuple(
        Query(
            f"max by (model) ({selected(f'halimede:{name}_slow:ratio_rate{window}', of=RECORDED)})"
            f" / (1 - ${name}_objective)",
            f"{{{{model}}}} {window}",
        )
        for window in ("5m", "1h", "6h", "3d")
    )
    about = (
        "At 1 the budget lasts 30 days; alerts fire at 14.4, 6, 3 and 1, by window. From the recording rules."
    )
    return Panel(f"Burn rate: {what}", about, "short", queries, limit=1)


OBJECTIVES: Final = (
    _burn("ttft", "first tokens that are late"),
    _burn("gap", "text of streams that comes late"),
    Panel(
        "Alerts",
        "Of the namespaces chosen.",
        "short",
        (
            Query(
                'max by (alertname, model, pod) (ALERTS{alertname=~"Halimede.*",alertstate="firing",'
                'namespace=~"$namespace"})',
                "{{alertname}} {{model}} {{pod}}",
            ),
        ),
        Kind.STATES,
        states=(("quiet", "green"), ("fires", "red")),
    ),
)
