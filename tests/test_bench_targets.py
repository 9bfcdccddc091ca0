"""Targets are judged by ratios within one run; what was not measured is neither met nor missed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from loadtest.bench import report
from loadtest.bench.footprint import Footprint, Prefix
from loadtest.bench.plan import Plan
from loadtest.bench.targets import Measured, Verdict, verdicts
from loadtest.bench.throughput import Steps
from loadtest.memory import Memory
from loadtest.sample import Sample
from tests.bench_machine import MACHINE


def _sample(row: str, streams: int, rate: float, repeat: int = 0) -> Sample:
    return Sample(row, streams, repeat, 64, 64, 64 / rate, rate, (0.1,) * streams, 0.01, 0.02)


def _found(*samples: Sample, steps: tuple[Steps, ...] = (), pss: int = 2_000_000_000) -> Measured:
    prefix = (Prefix(0.4, 0.02), Prefix(0.5, 0.03), Prefix(0.6, 0.06))
    filled = Memory(pss + 500_000_000, pss, 5)
    cost = Footprint(3.5, "2.51.0", prefix, Memory(9, 8, 5), filled)
    return Measured(samples, steps, cost, {"perplexity": 12.6, "reference_perplexity": 12.5}, hits=0)


def _verdict(found: Measured, start: str) -> Verdict:
    return next(verdict for verdict in verdicts(found) if verdict.name.startswith(start))


def test_a_ratio_of_medians_with_the_extremes_of_its_repeats() -> None:
    rates = {("grpc", 8): (190, 180, 200), ("engine", 8): (200, 200, 250)}
    samples = [_sample(*key, rate, i) for key, found in rates.items() for i, rate in enumerate(found)]
    verdict = _verdict(_found(*samples), "tokens/s, 8 streams")
    assert verdict.value == pytest.approx(0.95)
    assert (verdict.low, verdict.high) == pytest.approx((0.8, 0.95))
    assert verdict.met is True


def test_what_was_not_measured_has_no_verdict() -> None:
    verdict = _verdict(_found(_sample("grpc", 1, 100)), "tokens/s, 1 stream")
    assert (verdict.value, verdict.met) == (None, None)


@pytest.mark.parametrize(("rate", "met"), [(499, False), (500, True)])
def test_against_transformers(rate: float, met: bool) -> None:
    found = _found(_sample("grpc", 1, rate), _sample("transformers", 1, 100))
    assert _verdict(found, "tokens/s, 1 stream").met is met


def test_a_decode_step_against_the_bare_loop_at_each_batch() -> None:
    steps = (Steps(1, 0, 0.0088, 0.0080, 0.0080), Steps(8, 0, 0.0200, 0.0170, 0.0160))
    one, eight = (_verdict(_found(steps=steps), f"decode step, batch {n}") for n in (1, 8))
    assert one.value == pytest.approx(1.1)
    assert eight.met is False
    assert eight.note == "20.00 ms, of it the model 17.00; bare 16.00"


def test_prefix_perplexity_memory_and_start() -> None:
    found = _found()
    prefix = _verdict(found, "time to first token")
    assert prefix.value == pytest.approx(0.06)
    assert (prefix.low, prefix.high) == pytest.approx((0.05, 0.1))
    assert _verdict(found, "perplexity").met is True
    assert _verdict(found, "memory").met is True
    assert _verdict(_found(pss=2_500_000_000), "memory").met is False
    assert _verdict(found, "time from start").met is True


def test_the_report_as_json_and_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    found = _found(_sample("grpc", 8, 190), _sample("grpc", 1, 100), _sample("engine", 8, 200))
    content = report.to_json(Plan(), MACHINE, found)
    assert json.loads(json.dumps(content, allow_nan=False))["samples"][0]["tokens_per_s"] == pytest.approx(
        190
    )
    assert {verdict["met"] for verdict in content["verdicts"]} == {True, False, None}
    report.show(Plan(), MACHINE, found)
    shown = capsys.readouterr().out
    for text in (
        "Triton gRPC",
        "0.950",
        "≥ 0.9",
        "missed",
        "not measured",
        "a CPU, 2 cores, kernels avx2",
        "commit abc",
    ):
        assert text in shown
    assert "prefix cache" not in shown
    report.show(Plan(), MACHINE, replace(found, hits=64.0))
    assert "64 prompt tokens came from the prefix cache" in capsys.readouterr().out
