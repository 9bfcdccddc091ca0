"""What aiperf is told, and how its records are read."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.crosscheck import aiperf
from loadtest.crosscheck.figures import figures_of
from loadtest.crosscheck.plan import TITLES, TOOLS, Plan
from loadtest.errors import BenchError
from loadtest.traffic.prompts import PromptWriter
from loadtest.traffic.schedule import schedule

PLAN = Plan(duration_s=3, tokens_in=16, tokens_out=4, rate_per_s=5)


def record(phase: str = "profiling", **changed: Any) -> dict[str, Any]:
    """As aiperf 0.13 writes it to profile_export.jsonl, what is not read left out."""
    return {
        "metadata": {
            "request_start_ns": 1_795_476_447_197_198_834,
            "request_end_ns": 1_795_476_452_613_790_423,
            "benchmark_phase": phase,
            "was_cancelled": False,
        },
        "metrics": {
            "time_to_first_token": {"value": 2620.927124, "unit": "ms"},
            "request_latency": {"value": 5416.591589, "unit": "ms"},
            "output_sequence_length": {"value": 64, "unit": "tokens"},
            "inter_token_latency": {"value": 44.37562642857142, "unit": "ms"},
        },
    } | changed


def test_timings_of_a_record() -> None:
    (timing,) = aiperf.timings_of([json.dumps(record())])
    assert timing.tokens == 64
    assert timing.ttft_s == pytest.approx(2.620927124)
    assert timing.e2e_s == pytest.approx(5.416591589)


def test_our_inter_token_latency_of_a_record_is_aiperfs_own() -> None:
    (timing,) = aiperf.timings_of([json.dumps(record())])
    assert timing.itl_s * 1000 == pytest.approx(44.37562642857142)


def test_its_warm_up_does_not_count() -> None:
    lines = [json.dumps(record("warmup", error={"code": 500})), json.dumps(record())]
    assert len(aiperf.timings_of(lines)) == 1


def test_a_failed_request_is_told() -> None:
    lines = [json.dumps(record()), json.dumps(record(error={"code": 503, "message": "queue is full"}))]
    with pytest.raises(BenchError, match=r"1 of 2 requests failed: .*queue is full"):
        aiperf.timings_of(lines)


@pytest.mark.parametrize("load", TITLES)
def test_aiperf_is_given_our_schedule(load: str) -> None:
    profile, writer = PLAN.profile(load, 2), PromptWriter(salt=7)
    rows = list(aiperf.rows(profile, writer))
    planned = [planned for planned, _ in zip(schedule(profile), rows, strict=False)]
    assert [row["text"] for row in rows] == [writer.write(one) for one in planned]
    assert {row["output_length"] for row in rows} == {PLAN.tokens_out}
    times = [row["timestamp"] / 1000 for row in rows if "timestamp" in row]
    assert times == pytest.approx([one.at_s for one in planned if one.at_s is not None])


def test_no_two_prompts_of_a_run_are_the_same() -> None:
    texts = [row["text"] for row in aiperf.rows(PLAN.profile("closed", 0), PromptWriter(salt=7))]
    assert len(set(texts)) == len(texts) == 60


def test_a_closed_loop_ends_by_time_and_an_open_one_by_its_timestamps(tmp_path: Path) -> None:
    inputs = aiperf.write_inputs(PLAN.profile("open", 0), PromptWriter(), tmp_path / "open")
    words = {
        load: aiperf.command(Path("aiperf"), "http://h:1", "m", PLAN.profile(load, 0), inputs, tmp_path)
        for load in TITLES
    }
    assert "--fixed-schedule" in words["open"]
    assert "--benchmark-duration" not in words["open"]
    assert "--fixed-schedule" not in words["closed"]
    assert words["closed"][words["closed"].index("--concurrency") + 1] == f"{PLAN.users}"


def test_prompts_that_ran_out_are_told() -> None:
    aiperf.check_prompts(60, PLAN.profile("closed", 0))
    with pytest.raises(BenchError, match="61 requests, and only 60 prompts"):
        aiperf.check_prompts(61, PLAN.profile("closed", 0))


def test_aiperf_keeps_out_of_the_users_home() -> None:
    found = aiperf.environment({"HF_HUB_OFFLINE": "1", "HOME": "/root", "PATH": "/bin"}, Path("/cache"))
    assert found == {"HOME": "/cache", "PATH": "/bin"}


@given(st.integers(1, 8), st.sampled_from(sorted(TITLES)), st.integers(1, 60), st.floats(0.1, 50))
def test_repeats_are_other_runs_of_the_same_load(repeats: int, load: str, users: int, rate: float) -> None:
    plan = Plan(repeats=repeats, users=users, rate_per_s=rate)
    profiles = [plan.profile(load, repeat) for repeat in range(repeats)]
    assert len({profile.seed for profile in profiles}) == repeats
    assert {profile.arrivals for profile in profiles} == {profiles[0].arrivals}


@given(st.integers(0, 8))
def test_both_tools_run_in_each_repeat_and_take_turns_in_going_first(repeat: int) -> None:
    orders = [Plan().order(repeat), Plan().order(repeat + 1)]
    assert all(sorted(order) == sorted(TOOLS) for order in orders)
    assert all(one[0] != other[0] for one, other in pairwise(orders))


def test_loads_of_one_repeat_have_seeds_of_their_own() -> None:
    assert PLAN.profile("closed", 1).seed != PLAN.profile("open", 1).seed


def test_a_run_of_aiperf_by_its_summary() -> None:
    summary = {
        "time_to_first_token": {"p50": 150.0},
        "inter_token_latency": {"avg": 20.0},
        "request_latency": {"p50": 1400.0},
        "output_token_throughput": {"avg": 180.0},
    }
    assert aiperf.headline(summary) == pytest.approx((0.15, 0.02, 1.4, 180.0))
    timings = aiperf.timings_of([json.dumps(record())])
    assert figures_of("aiperf", timings).ttft_p50_s == pytest.approx(2.620927124)
