"""Targets are judged by ratios within one run; what was not measured is neither met nor missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from loadtest.bench.engines import Build
from loadtest.bench.measure import Found, Steps
from loadtest.bench.plan import COMPARED, MODELS, PEERS, Plan, Setting
from loadtest.bench.sample import Sample
from loadtest.bench.targets import BUILDS, RATES, Verdict, eligible, verdicts
from tests.unit.loadtest.bench.machine import QUALITIES, footprint, manifest, sample

GRPC, ENGINE = "Triton gRPC", "in process"
PEERS_PLAN = Plan(models=(COMPARED,), peers=PEERS, score=True, repeats=2)
MODELS_PLAN = Plan(models=tuple(MODELS[name] for name in ("gpt2", "bart-base", "bart-large")))
PEERS_RATES = {
    ("engine", 1): 150.0,
    ("engine", 8): 400.0,
    ("openvino", 8): 900.0,
    ("openvino-tuned", 8): 320.0,
    ("llama-q4_0", 8): 800.0,
    ("llama-q8_0", 8): 200.0,
    ("grpc", 8): 390.0,
    ("vllm", 8): 260.0,
    ("server-q8_0", 8): 300.0,
}


def _found(*samples: Sample, steps: Sequence[Steps] = (), pss: int = 2_000_000_000) -> Found:
    quality = {"perplexity": 12.6, "reference_perplexity": 12.5}
    manifests = {"smollm2": manifest("smollm2", quality)}
    return Found(list(samples), list(steps), manifests=manifests, footprint=footprint(pss))


def _compared(rates: Mapping[tuple[str, int], float]) -> Found:
    return _found(
        *(
            sample(row, streams, rate * (1 + repeat / 100), repeat)
            for (row, streams), rate in rates.items()
            for repeat in range(2)
        )
    )


def _verdict(start: str, found: Found, plan: Plan | None = None) -> Verdict:
    qualities = QUALITIES if plan is PEERS_PLAN else {}
    judged = verdicts(plan or Plan(), found, qualities)
    return next(verdict for verdict in judged if verdict.name.startswith(start))


def test_the_table_names_rows_and_models_that_there_are() -> None:
    assert {target.model for target in RATES} | set(BUILDS) <= set(MODELS)
    for model in MODELS.values():
        judged = verdicts(Plan(models=(model,)), Found(), {})
        assert judged
        assert {verdict.met for verdict in judged} == {None}


def test_a_ratio_of_medians_with_the_extremes_of_its_repeats() -> None:
    rates = {("grpc", 8): (190, 180, 200), ("engine", 8): (200, 200, 250)}
    samples = [sample(*key, rate, i) for key, found in rates.items() for i, rate in enumerate(found)]
    verdict = _verdict(f"tokens/s, smollm2, 8 at once: {GRPC} / {ENGINE}", _found(*samples))
    assert verdict.value == pytest.approx(0.95)
    assert (verdict.low, verdict.high) == pytest.approx((0.8, 0.95))
    assert verdict.met is True


def test_what_was_not_measured_has_no_verdict() -> None:
    verdict = _verdict("tokens/s, smollm2, 1 at once", _found(sample("grpc", 1, 100)))
    assert (verdict.value, verdict.met) == (None, None)


@pytest.mark.parametrize(("rate", "met"), [(499, False), (500, True)])
def test_against_transformers(rate: float, met: bool) -> None:
    found = _found(sample("grpc", 1, rate), sample("transformers", 1, 100))
    assert _verdict("tokens/s, smollm2, 1 at once", found).met is met


@pytest.mark.parametrize(("rate", "met"), [(249, False), (250, True)])
def test_more_streams_bring_more_tokens(rate: float, met: bool) -> None:
    found = _found(sample("grpc", 1, 100), sample("grpc", 8, rate))
    assert _verdict("tokens/s, smollm2, Triton gRPC: 8 streams / 1", found).met is met


def test_a_decode_step_against_the_bare_graph_at_each_batch() -> None:
    steps = (Steps(1, 0, 0.0088, 0.0080, 0.0080), Steps(8, 0, 0.0200, 0.0170, 0.0160))
    one, eight = (_verdict(f"decode step, batch {n}", _found(steps=steps)) for n in (1, 8))
    assert one.value == pytest.approx(1.1)
    assert eight.met is False
    assert eight.note == "20.00 ms, 17.00 of them in the model; bare 16.00"


def test_prefix_perplexity_memory_and_start() -> None:
    found = _found()
    prefix = _verdict("time to first token", found)
    assert prefix.value == pytest.approx(0.06)
    assert (prefix.low, prefix.high) == pytest.approx((0.05, 0.1))
    assert _verdict("perplexity", found).met is True
    assert _verdict("memory", found).met is True
    assert _verdict("memory", _found(pss=2_500_000_000)).met is False
    assert _verdict("time from start", found).met is True


def test_only_equal_quality_is_compared() -> None:
    alone = eligible(PEERS_PLAN, COMPARED, Setting.PROCESS, QUALITIES)
    assert [row.name for row in alone] == ["openvino-tuned", "llama-q8_0"]
    assert eligible(PEERS_PLAN, COMPARED, Setting.PROCESS, {}) == []


def test_the_best_peer_is_that_of_this_number_of_streams() -> None:
    verdict = _verdict(
        f"tokens/s, smollm2, 8 at once: {ENGINE} / the best peer",
        _compared(PEERS_RATES),
        PEERS_PLAN,
    )
    assert verdict.value == pytest.approx(400 / 320)
    assert verdict.note == "the best: OpenVINO GenAI int8, tuned"
    assert verdict.met is True


def test_servers_are_compared_with_servers() -> None:
    verdict = _verdict(
        f"tokens/s, smollm2, 8 at once: {GRPC} / the best peer", _compared(PEERS_RATES), PEERS_PLAN
    )
    assert verdict.value == pytest.approx(1.3)
    assert (verdict.note, verdict.target) == ("the best: llama-server Q8_0", 1.3)


def test_nothing_to_compare_with_is_no_verdict() -> None:
    verdict = _verdict(
        f"tokens/s, smollm2, 1 at once: {ENGINE} / the best peer", _compared(PEERS_RATES), PEERS_PLAN
    )
    assert (verdict.value, verdict.met) == (None, None)
    assert "no peer" in verdict.note


@pytest.mark.parametrize(("rate", "met"), [(379.0, False), (381.0, True)])
def test_through_triton_against_in_process(rate: float, met: bool) -> None:
    found = _compared({**PEERS_RATES, ("grpc", 8): rate})
    assert _verdict(f"tokens/s, smollm2, 8 at once: {GRPC} / {ENGINE}", found, PEERS_PLAN).met is met


def _random(row: str, rate: float, repeat: int = 0, beams: int = 1, model: str = "gpt2") -> Sample:
    return replace(sample(row, 1, rate, repeat), model=model, beams=beams)


def test_rates_of_a_model_are_judged_as_ratios_with_their_spread() -> None:
    ours = [_random("grpc", rate, i) for i, rate in enumerate((80, 90, 100))]
    theirs = [_random("transformers", rate, i) for i, rate in enumerate((20, 20, 25))]
    verdict = verdicts(MODELS_PLAN, _found(*ours, *theirs), {})[0]
    assert verdict.name == f"tokens/s, gpt2, 1 at once: {GRPC} / transformers"
    assert (verdict.value, verdict.low, verdict.high) == pytest.approx((4.5, 4.0, 4.5))
    assert verdict.met is True


@pytest.mark.parametrize(("rate", "met"), [(59.9, False), (60, True)])
def test_beams_are_judged_apart(rate: float, met: bool) -> None:
    samples = [_random(row, r, 0, 4, "bart-base") for row, r in (("grpc", rate), ("transformers", 20))]
    by_name = {verdict.name: verdict.met for verdict in verdicts(MODELS_PLAN, _found(*samples), {})}
    assert by_name[f"tokens/s, bart-base, 4 beams, 1 at once: {GRPC} / transformers"] is met
    assert by_name[f"tokens/s, bart-base, 1 at once: {GRPC} / transformers"] is None


def test_builds_are_judged_by_time_and_memory() -> None:
    plan = replace(MODELS_PLAN, rows=("build",))
    builds = [Build("gpt2", 61.0, 2 * 10**9), Build("bart-large", 200.0, 9 * 10**9)]
    found = verdicts(plan, replace(_found(), builds=builds), {})
    assert [verdict.met for verdict in found] == [False, True, False]
    assert found[0].note == "memory 2.00 GB"
    unmeasured = verdicts(plan, _found(), {})
    assert len(unmeasured) == 3
    assert {verdict.met for verdict in unmeasured} == {None}


def test_rows_that_are_left_out_are_not_judged() -> None:
    plan = Plan(rows=("engine", "http"))
    assert [verdict.name for verdict in verdicts(plan, _found(), {})] == ["perplexity: int8 / fp32"]
