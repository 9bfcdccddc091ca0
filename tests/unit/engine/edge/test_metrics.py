from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from engine.core.contract import METRICS
from engine.edge.metrics import (
    E2E,
    FLUSH_SECONDS,
    GAP,
    ITL,
    KERNELS,
    PREFIX,
    QUEUE,
    TTFT,
    MetricsFlusher,
    Recorder,
)
from engine.runners.kernels import KernelUse, Why
from tests.fakes.loop import unexpected
from tests.fakes.triton import FakeFamily, FakeMetric

ARGS = {"model_name": "toy_engine", "model_version": "1"}
LABELS = {"model": "toy_engine", "version": "1"}


class FakeTriton:
    """The metric API of Triton's Python backend."""

    def __init__(self) -> None:
        self.families: dict[str, FakeFamily] = {}
        self.MetricFamily = type("MetricFamily", (FakeFamily,), {"made": self.families})

    def __getitem__(self, name: str) -> FakeFamily:
        return self.families[PREFIX + name]

    def metric(self, name: str, **labels: str) -> FakeMetric:
        return next(m for m in self[name].metrics if m.labels == LABELS | labels)


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(unexpected)


def test_every_metric_of_the_design_is_there_from_the_start(triton: FakeTriton, recorder: Recorder) -> None:
    MetricsFlusher(triton, recorder, ARGS)
    assert {name.removeprefix("halimede_") for name in triton.families} == {
        "time_to_first_token_seconds", "inter_token_latency_seconds", "inter_response_latency_seconds",
        "e2e_request_latency_seconds", "request_queue_time_seconds",
        "num_requests_waiting", "num_requests_running", "kv_cache_usage_perc",
        "prompt_tokens_total", "generation_tokens_total", "prefix_cache_hits_total",
        "prefix_cache_queries_total", "request_success_total", "requests_rejected_total",
        "spec_decode_num_draft_tokens_total", "spec_decode_num_accepted_tokens_total",
        "trace_spans_dropped_total",
    }  # fmt: skip
    kinds = {name: family.kind for name, family in triton.families.items()}
    assert kinds == {PREFIX + name: metric.kind for name, metric in METRICS.items() if name != KERNELS}
    assert all(family.metrics for family in triton.families.values())


def test_latencies_and_reasons_have_their_labels(triton: FakeTriton, recorder: Recorder) -> None:
    MetricsFlusher(triton, recorder, ARGS)
    for name in (TTFT, ITL, E2E):
        assert [m.labels for m in triton[name].metrics] == [
            LABELS | {"streamed": s} for s in ("false", "true")
        ]
    for name in (GAP, QUEUE):
        assert [m.labels for m in triton[name].metrics] == [LABELS]
    reasons = {m.labels["finished_reason"] for m in triton["request_success_total"].metrics}
    assert reasons == {"stop", "length", "stop_sequence"}
    reasons = {m.labels["reason"] for m in triton["requests_rejected_total"].metrics}
    assert reasons == {"invalid_arg", "unavailable", "deadline_exceeded", "cancelled", "internal"}


def test_what_is_recorded_is_handed_over_once(triton: FakeTriton, recorder: Recorder) -> None:
    flusher = MetricsFlusher(triton, recorder, ARGS)
    recorder.started(2_000_000_000)
    recorder.prompt(10, 4)
    recorder.prompt(5, 0)
    recorder.tokens(3)
    recorder.first_token(500_000_000, streamed=True)
    recorder.next_token(20_000_000, streamed=True)
    recorder.next_token(40_000_000, streamed=False)
    recorder.next_response(160_000_000)
    recorder.finished("stop", 3_000_000_000, streamed=True)
    recorder.rejected("unavailable")
    recorder.gauges(2, 3, 0.25)
    for now in (1.0, 2.0, 3.0):
        flusher.flush(now)
    assert triton.metric(QUEUE).calls == [("observe", 2.0)]
    assert triton.metric("prompt_tokens_total").total == 15
    assert triton.metric("prefix_cache_queries_total").total == 15
    assert triton.metric("prefix_cache_hits_total").total == 4
    assert triton.metric("generation_tokens_total").calls == [("increment", 3)]
    assert triton.metric(TTFT, streamed="true").calls == [("observe", 0.5)]
    assert triton.metric(TTFT, streamed="false").calls == []
    assert triton.metric(ITL, streamed="true").calls == [("observe", 0.02)]
    assert triton.metric(ITL, streamed="false").calls == [("observe", 0.04)]
    assert triton.metric(GAP).calls == [("observe", 0.16)]
    assert triton.metric(E2E, streamed="true").calls == [("observe", 3.0)]
    assert triton.metric("request_success_total", finished_reason="stop").total == 1
    assert triton.metric("requests_rejected_total", reason="unavailable").total == 1
    assert triton.metric("num_requests_waiting").calls == [("set", 2)]
    assert triton.metric("num_requests_running").calls == [("set", 3)]
    assert triton.metric("kv_cache_usage_perc").calls == [("set", 0.25)]


def test_a_flush_too_soon_waits_for_the_next(triton: FakeTriton, recorder: Recorder) -> None:
    flusher = MetricsFlusher(triton, recorder, ARGS)
    flusher.flush(10.0)
    recorder.tokens(1)
    flusher.flush(10.0 + FLUSH_SECONDS / 2)
    assert triton.metric("generation_tokens_total").calls == []
    flusher.flush(10.0 + FLUSH_SECONDS)
    assert triton.metric("generation_tokens_total").total == 1


def test_a_gauge_is_set_when_it_changes(triton: FakeTriton, recorder: Recorder) -> None:
    flusher = MetricsFlusher(triton, recorder, ARGS)
    for now, waiting in enumerate([1, 1, 0, 0, 1]):
        recorder.gauges(waiting, 0, 0.0)
        flusher.flush(float(now))
    assert triton.metric("num_requests_waiting").calls == [("set", 1), ("set", 0), ("set", 1)]


def test_what_is_left_when_it_closes_is_handed_over(triton: FakeTriton, recorder: Recorder) -> None:
    """The series of an unloaded model stay: it must not look busy for ever."""
    flusher = MetricsFlusher(triton, recorder, ARGS)
    recorder.gauges(3, 2, 0.5)
    flusher.flush(10.0)
    recorder.tokens(7)
    flusher.close()
    assert triton.metric("generation_tokens_total").total == 7
    gauges = ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc")
    assert [triton.metric(name).calls[-1] for name in gauges] == [("set", 0)] * 3


def test_buckets_are_seconds_in_order() -> None:
    histograms = [metric.buckets for metric in METRICS.values() if metric.kind == "histogram"]
    assert len(histograms) == 5
    assert [tuple(sorted(set(buckets))) for buckets in histograms] == histograms


def test_nothing_is_lost_between_threads(recorder: Recorder) -> None:
    """Several threads count while another drains."""
    seen: Counter[Any] = Counter()
    done = threading.Event()

    def count() -> None:
        for _ in range(2000):
            recorder.tokens(1)
            recorder.next_token(1, streamed=True)

    def drain() -> None:
        while True:
            last = done.is_set()
            tally = recorder.drain()
            seen.update(tally.counters)
            seen["observed"] += sum(map(len, tally.observations.values()))
            if last:
                return

    drainer = threading.Thread(target=drain)
    drainer.start()
    counters = [threading.Thread(target=count) for _ in range(3)]
    for thread in counters:
        thread.start()
    for thread in counters:
        thread.join(60)
    done.set()
    drainer.join(60)
    assert seen == {("generation_tokens_total", ()): 6000, "observed": 6000}


def test_a_fault_is_reported() -> None:
    faults: list[BaseException] = []
    error = RuntimeError("x")
    Recorder(faults.append).fault(error)
    assert faults == [error]


@pytest.mark.parametrize(
    ("kernels", "labels"),
    [
        (KernelUse("avx2"), {"level": "avx2", "why": ""}),
        (KernelUse(None, Why.MODEL, "no index"), {"level": "none", "why": "unsupported model"}),
    ],
)
def test_the_metric_of_the_kernel_level_is_set_until_the_flusher_closes(
    triton: FakeTriton, recorder: Recorder, kernels: KernelUse, labels: dict[str, str]
) -> None:
    flusher = MetricsFlusher(triton, recorder, ARGS, kernels=kernels.labels)
    flusher.flush(1.0)
    assert triton.metric(KERNELS, **labels).calls == [("set", 1)]
    flusher.flush(2.0)
    assert triton.metric(KERNELS, **labels).calls == [("set", 1)] * 2
    flusher.close()
    assert triton.metric(KERNELS, **labels).calls[-1] == ("set", 0)
    assert len(triton[KERNELS].metrics) == 1


def test_the_kernels_of_several_instances_say_whose_they_are(triton: FakeTriton, recorder: Recorder) -> None:
    args = ARGS | {"model_instance_name": "toy_engine_0_1"}
    MetricsFlusher(triton, recorder, args, 2, KernelUse("plain").labels).flush(0.0)
    labels = {"level": "plain", "why": "", "model_instance": "toy_engine_0_1"}
    assert triton.metric(KERNELS, **labels).calls == [("set", 1)]


def test_an_engine_on_a_gpu_tells_of_no_kernels(triton: FakeTriton, recorder: Recorder) -> None:
    MetricsFlusher(triton, recorder, ARGS).close()
    assert PREFIX + KERNELS not in triton.families


def test_gauges_of_several_instances_say_whose_they_are(triton: FakeTriton, recorder: Recorder) -> None:
    args = ARGS | {"model_instance_name": "toy_engine_0_1"}
    flusher = MetricsFlusher(triton, recorder, args, instances=2)
    recorder.gauges(3, 2, 0.5)
    recorder.prompt(10, 4)
    flusher.flush(0.0)
    for name, value in (
        ("num_requests_waiting", 3),
        ("num_requests_running", 2),
        ("kv_cache_usage_perc", 0.5),
    ):
        assert len(triton[name].metrics) == 1
        assert triton.metric(name, model_instance="toy_engine_0_1").calls[-1] == ("set", value)
    assert triton.metric("prompt_tokens_total").total == 10
