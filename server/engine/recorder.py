"""What the engine counts. The loop records, another thread drains: a metric call through Triton costs 50 to
80 us.

The names end like vLLM's, so that dashboards made for vLLM need only another prefix.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]

TTFT: Final = "time_to_first_token_seconds"
ITL: Final = "inter_token_latency_seconds"
GAP: Final = "inter_response_latency_seconds"
E2E: Final = "e2e_request_latency_seconds"
QUEUE: Final = "request_queue_time_seconds"

STREAMED: Final = tuple((("streamed", text),) for text in ("false", "true"))


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened since the last drain; gauges are their last values."""

    gauges: Mapping[str, float]
    counters: Mapping[Series, int]
    observations: Mapping[Series, list[float]]


class Recorder:
    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._gauges: dict[str, float] = {}
        self._counters: Counter[Series] = Counter()
        self._observations: dict[Series, list[float]] = {}

    def drain(self) -> Tally:
        with self._lock:
            tally = Tally(dict(self._gauges), self._counters, self._observations)
            self._counters, self._observations = Counter(), {}
            return tally

    def gauges(self, waiting: int, running: int, kv_usage: float) -> None:
        with self._lock:
            self._gauges = {
                "num_requests_waiting": waiting,
                "num_requests_running": running,
                "kv_cache_usage_perc": kv_usage,
            }

    def started(self, waited_ns: int) -> None:
        self._observe((QUEUE, ()), waited_ns)

    def prompt(self, tokens: int, reused: int) -> None:
        self._count("prompt_tokens_total", tokens)
        self._count("prefix_cache_queries_total", tokens)
        self._count("prefix_cache_hits_total", reused)

    def tokens(self, count: int) -> None:
        self._count("generation_tokens_total", count)

    def draft(self, proposed: int, kept: int) -> None:
        self._count("spec_decode_num_draft_tokens_total", proposed)
        self._count("spec_decode_num_accepted_tokens_total", kept)

    def first_token(self, waited_ns: int, streamed: bool) -> None:
        self._observe((TTFT, STREAMED[streamed]), waited_ns)

    def next_token(self, waited_ns: int, streamed: bool) -> None:
        self._observe((ITL, STREAMED[streamed]), waited_ns)

    def next_response(self, waited_ns: int) -> None:
        self._observe((GAP, ()), waited_ns)

    def finished(self, reason: str, took_ns: int, streamed: bool) -> None:
        self._count("request_success_total", 1, (("finished_reason", reason),))
        self._observe((E2E, STREAMED[streamed]), took_ns)

    def rejected(self, reason: str) -> None:
        self._count("requests_rejected_total", 1, (("reason", reason),))

    def spans_dropped(self, count: int) -> None:
        self._count("trace_spans_dropped_total", count)

    def fault(self, error: BaseException) -> None:
        self._report(error)

    def _count(self, name: str, amount: int, labels: Labels = ()) -> None:
        with self._lock:
            self._counters[name, labels] += amount

    def _observe(self, series: Series, value_ns: int) -> None:
        with self._lock:
            self._observations.setdefault(series, []).append(value_ns / 1e9)
