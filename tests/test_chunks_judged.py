"""What a prompt does to the streams beside it: gaps, ratios, and which chunk size is taken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.chunks import plot, report
from loadtest.chunks.arrival import Arrival, Sample, sample_of
from loadtest.chunks.judged import points, recommended
from loadtest.chunks.plan import Plan, Variant, check, variant
from loadtest.errors import BenchError
from tests.bench_machine import MACHINE

PLAN = Plan(chunks=(32, 128), repeats=1)


def _arrival() -> Arrival:
    """Two streams, a token each 0.1 s; the prompt comes at 1.05 and costs them one gap of 0.5 s."""
    early = [(0.1 * i, 1) for i in range(1, 11)]
    late = [(0.5 + 0.1 * i, 1) for i in range(6)]
    after = [(1.5, 1), (1.6, 1)]
    return Arrival([early + after, late + after], 1.05, [(1.55, 1), (1.7, 1)])


def _sample(name: str, itl: float, ttft: float, *, alone: float = 1.0, repeat: int = 0) -> Sample:
    return Sample("engine", name, repeat, 0.02, 0.025, itl / 2, itl, ttft, alone)


def test_the_gaps_before_begin_when_all_streams_run() -> None:
    assert _arrival().gaps_before() == pytest.approx([0.1] * 10)


def test_the_gaps_beside_are_all_that_overlap_with_the_prompt() -> None:
    assert _arrival().gaps_beside() == pytest.approx([0.5, 0.1] * 2)


def test_a_sample_of_a_prompt_among_streams_and_alone() -> None:
    sample = sample_of("engine", "32", 0, _arrival(), Arrival([], 0.0, [(0.25, 1)]), 64)
    assert sample.ttft_beside_s == pytest.approx(0.5)
    assert sample.ttft_alone_s == 0.25
    assert sample.itl_before_p99_s == pytest.approx(0.1)
    assert sample.itl_beside_p50_s == pytest.approx(0.3)
    assert sample.itl_beside_p99_s == pytest.approx(0.5)


def test_a_joined_chunk_counts_once_a_token() -> None:
    found = Arrival([[(1.0, 1), (2.0, 2), (4.0, 1)]], 3.0, [(3.5, 1)])
    assert found.gaps_before() == [0.5, 0.5]
    assert found.gaps_beside() == [2.0]


def test_streams_that_end_before_the_prompt_is_through_are_told() -> None:
    with pytest.raises(BenchError, match="a stream's 8 tokens came before the prompt's first one"):
        sample_of("engine", "16", 0, _arrival(), _arrival(), 8)


def test_answers_in_one_piece_are_told() -> None:
    found = Arrival([[(1.0, 9)]], 1.5, [(2.0, 1)])
    with pytest.raises(BenchError, match="are the answers streamed"):
        sample_of("grpc", "16", 0, found, found, 64)


def test_what_meets_both_aims_is_recommended() -> None:
    found = points(PLAN, [_sample("32", 0.09, 2.0), _sample("128", 0.2, 1.5)])
    assert [point.itl_ratio for point in found] == pytest.approx([3.6, 8.0])
    assert [point.meets(PLAN) for point in found] == [True, False]
    best = recommended(PLAN, found)
    assert best is not None
    assert best.variant == "32"
    assert "both ITL p99 ≤ 4 x and TTFT ≤ 2.5 x of alone: 32;" in report.verdict(PLAN, found)


def test_where_none_meets_both_the_nearest_is_named() -> None:
    found = points(PLAN, [_sample("32", 0.11, 2.6), _sample("128", 0.2, 1.5)])
    assert recommended(PLAN, found) is None
    assert "none meets both" in report.verdict(PLAN, found)
    assert "32 comes nearest" in report.verdict(PLAN, found)


def test_a_size_gains_nothing_by_being_slow_alone() -> None:
    slow, fast = _sample("32", 0.09, 3.0, alone=2.0), _sample("128", 0.2, 1.5, alone=1.0)
    point = points(PLAN, [slow, fast])[0]
    assert (point.ttft_ratio, point.ttft_own_ratio) == (3.0, 1.5)
    assert not point.meets(PLAN)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.5, 10)), min_size=2, max_size=2))
def test_a_recommended_size_meets_both_and_no_other_is_better(figures: list[tuple[float, float]]) -> None:
    samples = [_sample(name, *pair) for name, pair in zip(("32", "128"), figures, strict=True)]
    found = points(PLAN, samples)
    best = recommended(PLAN, found)
    good = [point for point in found if point.meets(PLAN)]
    assert (best is None) == (not good)
    if best:
        assert best.meets(PLAN)
        assert all(best.worst(PLAN) <= point.worst(PLAN) for point in good)


def test_medians_and_extremes_over_the_repeats() -> None:
    itls = (0.05, 0.1, 0.075)
    samples = [_sample("32", itl, 2.0, repeat=i) for i, itl in enumerate(itls)]
    point = points(Plan(chunks=(32,)), samples)[0]
    assert (point.itl_ratio, point.itl_low, point.itl_high) == pytest.approx((3.0, 2.0, 4.0))
    assert point.itl_p99_s == 0.075


def test_more_variants_of_any_parameter() -> None:
    one = variant("slots=8,prefill_chunk=64")
    assert one == Variant("slots=8,prefill_chunk=64", {"slots": "8", "prefill_chunk": "64"})
    check(Plan(also=(one,)), ["slots", "prefill_chunk", "prefill_stall_percent"])


@pytest.mark.parametrize("text", ["", "slots", "slots=", "=8", "slots=8,", "slots=8,x"])
def test_a_variant_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be NAME=VALUE"):
        variant(text)


def test_a_parameter_that_the_engine_would_ignore_is_refused() -> None:
    plan = Plan(also=(variant("seats=8"),))
    with pytest.raises(
        BenchError, match="seats is no parameter; there are prefill_chunk, prefill_stall_percent, slots"
    ):
        check(plan, ["slots", "prefill_chunk", "prefill_stall_percent"])


def test_the_report_as_json_table_and_plot(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(chunks=(32, 128), also=(variant("threads=1"),), repeats=1)
    samples = [_sample("32", 0.09, 2.0), _sample("128", 0.2, 1.5), _sample("threads=1", 0.1, 2.5)]
    content = json.loads(json.dumps(report.to_json(plan, MACHINE, samples), allow_nan=False))
    assert content["recommended"] == {"engine": "32"}
    assert [point["meets_both"] for point in content["points"]] == [True, False, True]
    report.show(plan, MACHINE, samples)
    shown = capsys.readouterr().out
    for text in ("a prompt of 1500 tokens among 8 streams", "threads=1", "3.60", "8.00", "both ITL p99"):
        assert text in shown
    assert plot.png(plan, points(plan, samples)).startswith(b"\x89PNG")
