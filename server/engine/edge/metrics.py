"""What the engine counts, and how Triton gets it, on its own metrics port.

The loop records, another thread drains: a metric call through Triton costs 50 to 80 us.

A metric lives only as long as its MetricFamily object, so both are kept. To Triton, metrics with equal labels
are one metric, whichever process made them: counters and histograms of a model's instances add up, but gauges
would overwrite each other. So with several instances, gauges have the label `model_instance` (`instance` is
Prometheus's own name for the server).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from engine.core.contract import METRICS, Metric

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


PREFIX: Final = "halimede_"
FLUSH_SECONDS: Final = 0.5

KERNELS: Final = "kernels_info"


def rejection_counter(pb_utils: Any, args: Mapping[str, str]) -> tuple[Any, Any]:
    """`requests_rejected_total` of a step that refuses requests before they reach the engine."""
    name, reason = "requests_rejected_total", "invalid_arg"
    family = pb_utils.MetricFamily
    counters = family(name=PREFIX + name, description=METRICS[name].help, kind=family.COUNTER)
    labels = {"model": args["model_name"], "version": args["model_version"], "reason": reason}
    # A metric lives only as long as its family.
    return counters, counters.Metric(labels=labels)


class MetricsFlusher:
    """`instances` is how many the model has; `kernels` the labels that say what computes it on a CPU."""

    def __init__(
        self,
        pb_utils: Any,
        recorder: Recorder,
        args: Mapping[str, str],
        instances: int = 1,
        kernels: Labels = (),
    ) -> None:
        self._pb_utils = pb_utils
        self._recorder = recorder
        self._labels = {"model": args["model_name"], "version": args["model_version"]}
        self._own = (("model_instance", args["model_instance_name"]),) if instances > 1 else ()
        self._kernels = kernels
        self._families = self._make_families()
        self._metrics: dict[tuple[str, Labels], Any] = {}
        self._gauges: dict[str, float] = {}
        self._next = 0.0
        for name, metric in METRICS.items():
            for labels in _initial(metric):
                self._metric(name, self._own + labels if metric.kind == "gauge" else labels)

    def flush(self, now: float) -> None:
        """Hand over what was recorded, at most every half second; `now` is monotonic seconds."""
        if now < self._next:
            return
        self._next = now + FLUSH_SECONDS
        self._tell_kernels(1)
        tally = self._recorder.drain()
        for name, value in tally.gauges.items():
            if self._gauges.get(name) != value:
                self._gauges[name] = value
                self._metric(name, self._own).set(value)
        for (name, labels), amount in tally.counters.items():
            self._metric(name, labels).increment(amount)
        for (name, labels), values in tally.observations.items():
            metric = self._metric(name, labels)
            for value in values:
                metric.observe(value)

    def close(self) -> None:
        """Hands over the last counts: the series keep these values until the model is loaded again.

        They are not deleted. A model that is reloaded in place has the same series, and Triton 2.51 dies of a
        segmentation fault when one process deletes what another writes.
        """
        self._recorder.gauges(0, 0, 0.0)
        self._next = 0.0
        self.flush(0.0)
        self._tell_kernels(0)

    def _tell_kernels(self, value: int) -> None:
        """Repeated at every flush: after a reload in place, the old model sets its gauge to 0 at its end."""
        if self._kernels:
            self._metric(KERNELS, self._own + self._kernels).set(value)

    def _make_families(self) -> dict[str, Any]:
        family = self._pb_utils.MetricFamily
        kinds = {"gauge": family.GAUGE, "counter": family.COUNTER, "histogram": family.HISTOGRAM}
        return {
            name: family(name=PREFIX + name, description=metric.help, kind=kinds[metric.kind])
            for name, metric in METRICS.items()
            if name != KERNELS or self._kernels
        }

    def _metric(self, name: str, labels: Labels) -> Any:
        if (name, labels) not in self._metrics:
            buckets = METRICS[name].buckets
            self._metrics[name, labels] = self._families[name].Metric(
                labels=self._labels | dict(labels), **({"buckets": [*buckets]} if buckets else {})
            )
        return self._metrics[name, labels]


def _initial(metric: Metric) -> list[Labels]:
    """The labels of the series that exist from the start, which dashboards and alerts ask for."""
    return [tuple(zip(metric.labels, values, strict=True)) for values in product(*metric.labels.values())]
