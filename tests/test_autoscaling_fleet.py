"""Simulated replicas: every request has one end, steps take what was measured, the page is the server's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import chunking
from engine.metrics import COUNTERS, GAUGES, HISTOGRAMS, PREFIX
from k8s.autoscaling.arrivals import SHAPES, Lengths, chat, conversation, poisson, rate
from k8s.autoscaling.calibration import Calibration, fitted, interpolated, load
from k8s.autoscaling.capacity import capacity
from k8s.autoscaling.chunks import Pace, weight
from k8s.autoscaling.fleet import POD_PREFIX, Fleet, Start
from k8s.autoscaling.pods import Phase
from k8s.autoscaling.rehearsal import simulate
from k8s.autoscaling.replica import Request, StepTimes
from k8s.autoscaling.tally import Place, page

ROOT = Path(__file__).resolve().parents[1]
SMALL = Calibration(
    slots=4,
    max_queue=3,
    max_context=2048,
    decode_s={1: 0.010, 4: 0.025},
    busy_cores={1: 1.8, 4: 1.9},
    idle_cores=0.0,
    request_s=0.005,
    prefill_call_s=0.01,
    prefill_token_s=0.001,
    prefill_stall=2.5,
    cold_start_s=(2.0, 3.0, 10.0),
    slowdown=1.0,
    cores=2,
    machine="a machine",
    measured="2026-01-01T00:00:00+00:00",
)
TIMES = StepTimes(SMALL)
requests = st.lists(
    st.builds(Request, st.floats(0, 60), st.integers(1, 600), st.integers(1, 60)), max_size=60
).map(lambda found: sorted(found, key=lambda one: one.at_s))


@given(requests, st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_every_request_ends_once_however_it_is_scaled(found: list[Request], sizes: list[int]) -> None:
    fleet = Fleet(TIMES, Start(1, 2), 1, found, grace_s=3)
    for turn, size in enumerate(sizes):
        fleet.advance(turn * 5.0)
        fleet.scale(size)
        assert fleet.size == size
    fleet.advance(10_000)
    assert len(fleet.requests) == len(found)
    for request in found:
        assert (request.end_s is None) == (request.rejected is not None)
        if request.end_s is not None:
            assert request.tokens == request.output
            assert request.ttft is not None
            assert request.ttft >= request.prompt * TIMES.prefill_token - 1e-9
    served = sum(one.tally.succeeded for one in [*fleet.replicas, *fleet.gone])
    assert served == sum(request.rejected is None for request in found)


def test_one_request_alone_takes_the_measured_times() -> None:
    [request] = simulate([Request(0.0, 256, 11)], 1, TIMES, 100)
    assert request.ttft == pytest.approx(0.005 + 2 * 0.01 + weight(0, 256) * 0.001)
    assert request.tpot == pytest.approx(0.010)


def test_a_full_queue_refuses() -> None:
    found = simulate([Request(0.0, 10, 100) for _ in range(10)], 1, TIMES, 100)
    reasons = [request.rejected for request in found]
    assert reasons.count("queue full") >= 2
    assert reasons.count(None) >= SMALL.max_queue


def test_the_balancer_shares_out() -> None:
    fleet = Fleet(TIMES, Start(1, 1), 3, [Request(0.0, 10, 100) for _ in range(6)])
    fleet.advance(0.5)
    assert [one.in_flight for one in fleet.replicas] == [2, 2, 2]


def test_a_new_replica_serves_after_its_node_and_its_server_are_up() -> None:
    fleet = Fleet(TIMES, Start(node_s=30, server_s=3), 1, [])
    fleet.scale(2)
    for until, phase in ((29.9, Phase.PENDING), (32.9, Phase.STARTING), (33, Phase.READY)):
        fleet.advance(until)
        assert fleet.pods[1].phase is phase


def test_a_replica_drains_before_it_goes_and_the_unready_goes_first() -> None:
    fleet = Fleet(TIMES, Start(30, 3), 2, [Request(0.0, 10, 300), Request(0.0, 10, 300)])
    fleet.advance(1)
    fleet.scale(3)
    fleet.scale(2)
    assert [pod.name for pod in fleet.pods] == [f"{POD_PREFIX}00001", f"{POD_PREFIX}00002"]
    fleet.scale(1)
    assert len(fleet.pods) == 2, "it still has a request"
    fleet.advance(100)
    assert len(fleet.pods) == 1
    assert all(request.end_s for request in fleet.requests)


def test_what_outlives_the_grace_period_is_cut_off() -> None:
    fleet = Fleet(TIMES, Start(30, 3), 1, [Request(0.0, 10, 1000)], grace_s=2)
    fleet.advance(1)
    fleet.scale(0)
    fleet.advance(100)
    assert fleet.requests[0].rejected == "cut off"


def test_the_page_has_the_names_and_buckets_of_the_server() -> None:
    fleet = Fleet(TIMES, Start(1, 1), 1, [Request(0.0, 100, 20)])
    fleet.advance(10)
    text = page(fleet.series(Place()), 10.0)
    names = set(re.findall(r"^halimede_(\w+?)(?:_bucket|_sum|_count)?{", text, re.MULTILINE))
    assert names <= {*GAUGES, *COUNTERS, *HISTOGRAMS}
    assert {*GAUGES, *HISTOGRAMS} <= names
    for name, (_, bounds) in HISTOGRAMS.items():
        found = re.findall(rf'^{PREFIX}{name}_bucket{{.*le="([^"]+)"}}', text, re.MULTILINE)
        assert [float(one) for one in found] == [*map(float, bounds), float("inf")]


def test_the_rate_of_a_shape() -> None:
    assert rate(SHAPES["steps"], 299) == 0.5
    assert rate(SHAPES["steps"], 300) == 2
    assert rate(SHAPES["ramp"], 540) == pytest.approx(2.75)
    assert rate(SHAPES["ramp"], 9999) == 0.5


@pytest.mark.parametrize("lengths", [chat, conversation])
def test_arrivals_are_poisson_at_the_rate_of_the_shape(lengths: Lengths) -> None:
    found = list(poisson(SHAPES["steps"], 10.0, lengths, seed=3))
    late = sum(780 <= request.at_s < 1260 for request in found)
    assert late == pytest.approx(40 * 480, rel=0.05)
    assert all(1 <= request.prompt <= 1900 and request.output >= 1 for request in found)
    assert [one.at_s for one in found] == [
        one.at_s for one in poisson(SHAPES["steps"], 10.0, lengths, seed=3)
    ]


@pytest.mark.parametrize("times", [2, 20])
def test_a_faster_server_has_the_greater_capacity(times: int) -> None:
    slow = replace(SMALL, slots=8, max_queue=16)
    fast = StepTimes(replace(slow, slowdown=1 / times))
    assert capacity(fast, chat) / capacity(StepTimes(slow), chat) == pytest.approx(times, rel=0.1)


def test_a_calibration_can_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    SMALL.save(path)
    assert load(path) == SMALL
    assert load(path).cold_start == 3.0
    path.write_text('{"slots": 4}')
    with pytest.raises(ValueError, match="not a calibration"):
        load(path)


def test_the_calibration_that_the_defaults_were_chosen_by_is_kept() -> None:
    found = load(ROOT / "k8s" / "autoscaling" / "smollm2-int8-2-cores.json")
    assert found.slots == max(found.decode_s) == 16
    assert f"{found.slowdown:.2f} times as long" in (ROOT / "docs" / "autoscaling.md").read_text("utf-8")


def test_between_two_points_a_table_is_linear() -> None:
    assert [interpolated({1: 1.0, 3: 2.0}, at) for at in (0, 1, 2, 3, 9)] == [1, 1, 1.5, 2, 2]


@given(st.tuples(*[st.floats(0.001, 0.1)] * 3))
def test_costs_are_found_again_in_what_they_add_up_to(costs: tuple[float, float, float]) -> None:
    rows = [[1.0, 1 + size // 128, weight(0, size)] for size in (10, 40, 100, 130, 300, 700, 1000)]
    values = [sum(cost * times for cost, times in zip(costs, row, strict=True)) for row in rows]
    assert fitted(rows, values) == pytest.approx(costs, rel=1e-3)


def test_no_cost_is_below_nothing() -> None:
    rows = [[1.0, 1.0, 10.0], [1.0, 1.0, 100.0], [1.0, 2.0, 200.0], [1.0, 4.0, 500.0]]
    assert min(fitted(rows, [0.001, 0.1, 0.25, 0.6])) >= 0


steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 1500), st.integers(1, 128), st.floats(0.001, 0.5)), max_size=20
)


@given(steps, st.integers(0, 1900), st.integers(1, 1900), st.booleans())
def test_chunks_are_as_long_as_the_engine_makes_them(
    found: list[tuple[bool, int, int, float]], done: int, left: int, beside: bool
) -> None:
    ours, theirs = Pace(), chunking.Pace()
    for decoded, start, tokens, seconds in found:
        if decoded:
            ours.decoded(seconds)
            theirs = theirs.decoded(seconds)
        else:
            ours.prefilled(start, tokens, seconds)
            theirs = theirs.prefilled(start, tokens, seconds)
    limits = chunking.Limits(128, 2.5)
    expected = chunking.chunk_tokens(theirs, limits, done, left, first=not done, beside=beside)
    assert ours.chunk(2.5, done, left, beside=beside) == expected
