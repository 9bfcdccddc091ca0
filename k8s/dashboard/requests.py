"""Rows about requests: what comes, how fast it is answered, what is refused."""

from __future__ import annotations

from typing import Final

from k8s.dashboard.panels import Kind, Panel, Query
from k8s.dashboard.queries import PODS, RECORDED, STEPS, mean, quantile, rate, ratio, selected, total

_TTFT: Final = "halimede_time_to_first_token_seconds"
_GAP: Final = "halimede_inter_response_latency_seconds"
_E2E: Final = "halimede_e2e_request_latency_seconds"
_QUEUE: Final = "halimede_request_queue_time_seconds"
_DONE: Final = "halimede_request_success_total"
_REFUSED: Final = "halimede_requests_rejected_total"
_GENERATED: Final = "halimede_generation_tokens_total"
_PROMPT: Final = "halimede_prompt_tokens_total"
_RATES: Final = "halimede:requests:rate5m"
_ALERTS: Final = 'ALERTS{alertname=~"Halimede.*",alertstate="firing",namespace=~"$namespace"}'


def _number(title: str, about: str, unit: str, *queries: Query, limit: float | None = None) -> Panel:
    return Panel(title, about, unit, queries, Kind.NUMBER, width=3, height=4, limit=limit)


NOW: Final = (
    _number(
        "Replicas",
        "Those that answer Prometheus, of all that it knows.",
        "short",
        Query(f"sum(up{{{PODS}}})", "up"),
        Query(f"count(up{{{PODS}}})", "of"),
    ),
    _number("Alerts", "That fire now.", "short", Query(f"count({_ALERTS}) or vector(0)"), limit=1),
    _number("Requests", "Completed each second.", "reqps", Query(total(rate(_DONE)))),
    _number("Tokens", "Generated each second.", "short", Query(total(rate(_GENERATED)))),
    _number("First token", "95 % come within.", "s", Query(quantile(0.95, _TTFT, by=""))),
    _number("Next text", "95 % of it comes to a stream within.", "s", Query(quantile(0.95, _GAP, by=""))),
    _number(
        "Requests inside",
        "In a slot, and in the queue for one.",
        "short",
        Query(total(selected("halimede_num_requests_running")), "run"),
        Query(total(selected("halimede_num_requests_waiting")), "wait"),
    ),
    _number(
        "KV cache",
        "The fullest of all.",
        "percentunit",
        Query(f"max({selected('halimede_kv_cache_usage_perc')})"),
        limit=0.9,
    ),
)

TRAFFIC: Final = (
    Panel(
        "What becomes of requests",
        "Completed by the engine, refused by it or the tokenizer, or broken by a step whose process died.",
        "reqps",
        (
            Query(total(rate(_DONE)), "completed"),
            Query(total(rate(_REFUSED, of=STEPS), "reason"), "{{reason}}"),
            Query(total(rate("nv_inference_request_failure", 'reason="BACKEND"', of=STEPS)), "broken"),
        ),
        Kind.STACK,
    ),
    Panel(
        "Completed requests by model",
        "",
        "reqps",
        (Query(total(rate(_DONE), "model"), "{{model}}"),),
    ),
    Panel(
        "Finish reasons",
        "stop: the model's end of text; length: max_tokens or the context; stop_sequence: a stop word.",
        "reqps",
        (Query(total(rate(_DONE), "finished_reason"), "{{finished_reason}}"),),
        Kind.STACK,
    ),
    Panel(
        "Tokens a second by model",
        "Prompt tokens count once their prefill is complete.",
        "short",
        (
            Query(total(rate(_GENERATED), "model"), "{{model}} generated"),
            Query(total(rate(_PROMPT), "model"), "{{model}} prompt"),
        ),
    ),
    Panel(
        "Tokens for each request, mean",
        "",
        "short",
        (
            Query(ratio(total(rate(_GENERATED), "model"), total(rate(_DONE), "model")), "{{model}} answer"),
            Query(
                ratio(total(rate(_PROMPT), "model"), total(rate(f"{_TTFT}_count"), "model")),
                "{{model}} prompt",
            ),
        ),
    ),
    Panel(
        "Prompt tokens from the prefix cache",
        "Share of those looked up. HalimedePrefixCacheCollapse compares it with yesterday's.",
        "percentunit",
        (
            Query(
                ratio(
                    total(rate("halimede_prefix_cache_hits_total"), "model"),
                    total(rate("halimede_prefix_cache_queries_total"), "model"),
                ),
                "{{model}}",
            ),
        ),
    ),
)


def _quantiles(title: str, about: str, histogram: str) -> Panel:
    shares = (0.5, 0.95, 0.99)
    queries = tuple(Query(quantile(q, histogram), f"{{{{model}}}} p{q * 100:.0f}") for q in shares)
    return Panel(title, about, "s", (*queries, Query(mean(histogram), "{{model}} mean")), width=6)


def _heat(title: str, histogram: str) -> Panel:
    query = Query(total(f"increase({selected(f'{histogram}_bucket')}[$__rate_interval])", "le"))
    about = "Of the models and Pods chosen, together."
    return Panel(f"{title}, heat map", about, "s", (query,), Kind.HEAT, width=12)


LATENCY: Final = (
    _quantiles("Time to the first token", "From arrival, streamed or not.", _TTFT),
    _quantiles("Time from text to text", "Of one stream: the gaps that its reader sees.", _GAP),
    _quantiles("Time to the last token", "From arrival.", _E2E),
    _quantiles("Time in the queue", "From arrival to the start of prefill.", _QUEUE),
    _heat("Time to the first token", _TTFT),
    _heat("Time from text to text", _GAP),
)


def _share(title: str, about: str, outcomes: str) -> Panel:
    some = total(selected(_RATES, f'outcome=~"{outcomes}"', of=RECORDED), "model")
    every = total(selected(_RATES, of=RECORDED), "model")
    return Panel(title, about, "percentunit", (Query(ratio(some, every), "{{model}}"),), limit=0.01)


FAULTS: Final = (
    Panel(
        "Refused requests by reason",
        "By the client: invalid_arg, cancelled. Capacity: unavailable, deadline_exceeded. Fault: internal.",
        "reqps",
        (Query(total(rate(_REFUSED, of=STEPS), "model, reason"), "{{model}} {{reason}}"),),
    ),
    _share(
        "Refused for want of capacity",
        "Of all requests, 5 minutes; HalimedeRejections fires above 1 %. From the recording rules.",
        "unavailable|deadline_exceeded",
    ),
    _share(
        "Failed by the server's fault",
        "Of all requests, 5 minutes; HalimedeErrorRatio fires above 1 %. From the recording rules.",
        "internal|broken",
    ),
)
