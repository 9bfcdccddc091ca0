"""The recorder's tallies as Triton custom metrics, on Triton's own port.

A metric lives only as long as its MetricFamily object, so both are kept. To Triton, metrics with equal labels
are one metric, whichever process made them: counters and histograms of a model's instances add up, but gauges
would overwrite each other. So with several instances, gauges have the label `model_instance` (`instance` is
Prometheus's own name for the server).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.kernels import KernelUse
from engine.recorder import E2E, GAP, ITL, QUEUE, STREAMED, TTFT, Labels, Recorder

PREFIX: Final = "halimede_"
FLUSH_SECONDS: Final = 0.5

GAUGES: Final = {
    "num_requests_waiting": "Requests in the queue",
    "num_requests_running": "Requests in a slot",
    "kv_cache_usage_perc": "Share of the KV cache that running requests fill, 0 to 1",
}
KERNELS: Final = "kernels_info"
COUNTERS: Final = {
    "prompt_tokens_total": "Prompt tokens of requests whose prefill is complete",
    "generation_tokens_total": "Tokens generated",
    "prefix_cache_queries_total": "Prompt tokens looked up in the prefix cache",
    "prefix_cache_hits_total": "Prompt tokens taken from the prefix cache",
    "request_success_total": "Requests completed, by reason",
    "requests_rejected_total": "Requests refused or ended without completion, by reason",
    "spec_decode_num_draft_tokens_total": "Tokens proposed by prompt lookup",
    "spec_decode_num_accepted_tokens_total": "Tokens proposed by prompt lookup that became the answer's",
    "trace_spans_dropped_total": "Spans that did not reach the trace collector",
}
_FAST: Final = [
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
]
_SLOW: Final = [
    0.1,
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    50.0,
    60.0,
    120.0,
]
HISTOGRAMS: Final = {
    TTFT: ("Seconds from arrival to the first token", _FAST),
    ITL: ("Seconds between two tokens of a request, as they are computed", _FAST),
    GAP: ("Seconds between two responses with text of one stream, as they are sent", _FAST),
    E2E: ("Seconds from arrival to the last token", _SLOW),
    QUEUE: ("Seconds from arrival to the start of prefill", _FAST),
}
# Series that dashboards and alerts ask for exist from the start, at zero.
_INITIAL: Final = {
    "request_success_total": [(("finished_reason", r),) for r in ("stop", "length", "stop_sequence")],
    "requests_rejected_total": [
        (("reason", r),) for r in ("invalid_arg", "unavailable", "deadline_exceeded", "cancelled", "internal")
    ],
    TTFT: list(STREAMED),
    ITL: list(STREAMED),
    E2E: list(STREAMED),
}


def rejection_counter(pb_utils: Any, args: Mapping[str, str]) -> tuple[Any, Any]:
    """`requests_rejected_total` of a step that refuses requests before they reach the engine."""
    name, reason = "requests_rejected_total", "invalid_arg"
    family = pb_utils.MetricFamily
    counters = family(name=PREFIX + name, description=COUNTERS[name], kind=family.COUNTER)
    labels = {"model": args["model_name"], "version": args["model_version"], "reason": reason}
    # A metric lives only as long as its family.
    return counters, counters.Metric(labels=labels)


class MetricsFlusher:
    """`instances` is how many the model has; `kernels` what computes it on a CPU."""

    def __init__(
        self,
        pb_utils: Any,
        recorder: Recorder,
        args: Mapping[str, str],
        instances: int = 1,
        kernels: KernelUse | None = None,
    ) -> None:
        self._pb_utils = pb_utils
        self._recorder = recorder
        self._labels = {"model": args["model_name"], "version": args["model_version"]}
        self._own = (("model_instance", args["model_instance_name"]),) if instances > 1 else ()
        self._kernels = kernels and (("level", kernels.level or "none"), ("why", kernels.why.value))
        self._families = self._make_families()
        self._metrics: dict[tuple[str, Labels], Any] = {}
        self._gauges: dict[str, float] = {}
        self._next = 0.0
        for name in (*GAUGES, *COUNTERS, *HISTOGRAMS):
            for labels in _INITIAL.get(name, [self._own if name in GAUGES else ()]):
                self._metric(name, labels)

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
        gauges = {name: (text, family.GAUGE) for name, text in GAUGES.items()}
        if self._kernels:
            gauges[KERNELS] = ("1 for the level of kernels in use, or for none and the reason", family.GAUGE)
        counters = {name: (text, family.COUNTER) for name, text in COUNTERS.items()}
        histograms = {name: (text, family.HISTOGRAM) for name, (text, _) in HISTOGRAMS.items()}
        return {
            name: family(name=PREFIX + name, description=text, kind=kind)
            for name, (text, kind) in (gauges | counters | histograms).items()
        }

    def _metric(self, name: str, labels: Labels) -> Any:
        if (name, labels) not in self._metrics:
            buckets = {"buckets": HISTOGRAMS[name][1]} if name in HISTOGRAMS else {}
            self._metrics[name, labels] = self._families[name].Metric(
                labels=self._labels | dict(labels), **buckets
            )
        return self._metrics[name, labels]
