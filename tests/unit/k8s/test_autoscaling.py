"""From a load report to the chart's replicas and targets."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from k8s.autoscaling import BadReport, Demand, Replica, Run, main, read, replicas, values
from loadtest.measure import result as results
from loadtest.measure import sweep as sweeps
from loadtest.measure.result import Result
from loadtest.measure.sweep import Rung, sweep_of
from tests.unit.loadtest.play import played

PLAYED = played(1)
PLAN = Demand(rate_per_s=9, min_rate_per_s=None, growth=0.2, headroom=0.7, spare=1, mode="hpa")
rates = st.floats(0.01, 1000)


def ran(running: float, waiting: float, met: bool = True, kv_usage: float = 0.5) -> Result:
    """Its gauges stand still in the window, which is from 10 to 60 s, and are high outside of it."""

    def series(value: float) -> tuple[tuple[float, float], ...]:
        return ((1.0, 99.0), *((float(at), value) for at in range(10, 61)), (62.0, 99.0))

    gauges = {"running": series(running), "waiting": series(waiting), "kv_usage": series(kv_usage)}
    verdicts = tuple(replace(one, met=met) for one in PLAYED.slo)
    return replace(PLAYED, gauges=gauges, slo=verdicts)


def sweep_file(folder: Path, *rungs: tuple[float, Result]) -> Path:
    path = folder / "sweep.json"
    path.write_text(sweeps.encode(sweep_of(PLAYED.profile, [Rung(*one) for one in rungs])))
    return path


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A replica that serves 2.38/s, as in docs/operate.md; at its planned 1.666/s 6 are in flight."""
    rungs = [(1.0, ran(4, 0)), (2.0, ran(7, 0)), (2.38, ran(9, 1)), (2.59, ran(16, 9, met=False))]
    return sweep_file(tmp_path, *rungs)


def told(replica: Replica, plan: Demand = PLAN) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(values(replica, plan, "sweep.json"))
    return found


def test_the_sweep_of_the_page_on_capacity(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--rate", "9"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == {
        "autoscaling": {
            "mode": "hpa",
            "minReplicas": 2,
            "maxReplicas": 8,
            # Half of 6 in flight; what waits for half a second, half of the TTFT limit of this profile.
            "targets": {
                "inFlightPerReplica": 3,
                "waitingPerReplica": 0.8,
                "kvCacheUsage": 0.8,
                "ttftP95Seconds": 1,
            },
        }
    }
    assert "9/s × 1.2 growth ÷ (2.38/s of a replica within the SLO × 0.7 headroom)" in text
    assert "Measured on 2 cores of AMD EPYC 9R14." in text


def test_the_minimum_serves_its_rate_and_nothing_scales_without_a_mode(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(sweep), "--rate", "9", "--min-rate", "4", "--mode", "keda"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)["autoscaling"]
    # 4 × 1.2 ÷ 1.666 is 2.9.
    assert (found["mode"], found["minReplicas"], found["maxReplicas"]) == ("keda", 4, 8)
    assert main([str(sweep), "--rate", "9", "--mode", "none"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {"replicas": 8, "autoscaling": {"mode": "none"}}


def test_one_run_is_as_good_as_its_slo(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(results.encode(ran(6, 1)))
    found = read(path)
    assert found.rate_per_s == PLAYED.offered_per_s
    assert found.in_flight_at(found.rate_per_s / 2) == pytest.approx(3.5)
    assert "One run says that its rate meets the SLO" in values(found, PLAN, "result.json")
    path.write_text(results.encode(ran(6, 1, met=False)))
    with pytest.raises(BadReport, match=r"result\.json: slo\[0\]\.met is false, must be true: error_ratio"):
        read(path)


def test_a_missing_ttft_limit_and_a_full_cache_give_no_targets(sweep: Path) -> None:
    found = read(sweep)
    full = replace(found, runs=(*found.runs[:-1], replace(found.runs[-1], kv_usage=0.9)), ttft_limit_s=None)
    targets = told(full)["autoscaling"]["targets"]
    assert targets == {"inFlightPerReplica": 3, "ttftP95Seconds": None, "kvCacheUsage": None}


def test_what_the_sweep_does_not_know_is_said(tmp_path: Path) -> None:
    found = read(sweep_file(tmp_path, (1.0, ran(4, 0)), (2.0, ran(7, 0))))
    assert "a replica may serve more" in values(found, PLAN, "sweep.json")
    doubtful = replace(ran(4, 0), doubts=("the generator was late",))
    found = read(sweep_file(tmp_path, (1.0, doubtful), (2.0, ran(9, 9, met=False))))
    assert "# Doubt: the generator was late" in values(found, PLAN, "sweep.json")


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=5, unique_by=lambda one: one[0]), st.data())
def test_targets_are_what_the_chart_takes_and_no_run_is_beyond_its_neighbours(
    seen: list[tuple[float, float]], data: st.DataObject
) -> None:
    replica = Replica(tuple(Run(rate, flight, 0.5) for rate, flight in sorted(seen)), 2.0, ())
    for run in replica.runs:
        assert replica.in_flight_at(run.rate_per_s) == pytest.approx(run.in_flight)
    at = data.draw(st.floats(0, replica.rate_per_s))
    assert 0 <= replica.in_flight_at(at) <= max(run.in_flight for run in replica.runs) * (1 + 1e-9)
    targets = told(replica, replace(PLAN, rate_per_s=replica.rate_per_s))["autoscaling"]["targets"]
    assert 0.1 <= targets["inFlightPerReplica"] <= 10_000
    assert 0.1 <= targets["waitingPerReplica"] <= 1000


@given(rates, rates, st.floats(0, 2), st.floats(0.05, 1), st.integers(0, 10))
def test_replicas_serve_the_rate_and_one_fewer_do_not(
    peak: float, one: float, growth: float, headroom: float, spare: int
) -> None:
    plan = replace(PLAN, growth=growth, headroom=headroom, spare=spare)
    needed = peak * (1 + growth)
    serving = replicas(peak, one * headroom, plan) - spare
    assert serving * one * headroom >= needed * (1 - 1e-9)
    assert (serving - 1) * one * headroom < needed * (1 + 1e-9)
    assert serving >= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "0"], "--rate: 0: must be a number from 0.001 to 1e+06"),
        (["--rate", "nan"], "--rate: nan: must be"),
        (["--rate", "nine"], "--rate: nine: must be"),
        (["--rate", "9", "--headroom", "1.5"], "--headroom: 1.5: must be"),
        (["--rate", "9", "--spare", "-1"], "--spare"),
        ([], "--rate"),
    ],
)
def test_an_option_that_is_wrong_is_named(
    sweep: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(sweep), *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_options_that_do_not_fit_together_are_named(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--rate", "9", "--min-rate", "10"]) == 2
    assert "--min-rate 10: must be at most --rate 9" in capsys.readouterr().err
    assert main([str(sweep), "--rate", "9000"]) == 2
    assert "--rate 9000: needs 6484 replicas, the chart takes 1000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("highest_rate_per_s", None, "highest_rate_per_s is null, must be a rate that meets the SLO"),
        ("highest_rate_per_s", 2.2, "highest_rate_per_s is 2.2, must be the rate of one of the rungs"),
        ("rungs", {}, "rungs is {}, must be a list"),
        ("rungs/0/rate_per_s", "1", 'rungs[0].rate_per_s is "1", must be a finite number'),
        ("rungs/0/result/gauges", {}, "must be an object with the field running: give the load test --met"),
        ("rungs/1/result/gauges/waiting", [], "rungs[1].result.gauges.waiting is [], must be readings betw"),
        ("rungs/2/result/gauges/kv_usage/3/1", -1, "rungs[2].result.gauges.kv_usage[3][1] is -1, must be a"),
        ("profile", [], None),
        (
            "profile/slo/ttft_p99_s",
            True,
            "profile.slo.ttft_p99_s is true, must be a finite number of at least 0",
        ),
        ("profile/slo/ttft_p99_s", float("nan"), "profile.slo.ttft_p99_s is NaN, must be a finite number"),
        ("rungs/0/result/window_s", [1], "rungs[0].result.window_s is [1], must be two numbers"),
        ("machine", {"cpu": "x"}, 'machine is {"cpu": "x"}, must be an object with the field cores'),
    ],
)
def test_a_field_that_is_wrong_is_named(sweep: Path, place: str, value: Any, said: str | None) -> None:
    report = json.loads(sweep.read_text())
    *way, last = [int(part) if part.isdigit() else part for part in place.split("/")]
    part = report
    for step in way:
        part = part[step]
    part[last] = value
    sweep.write_text(json.dumps(report))
    if said is None:
        assert read(sweep).ttft_limit_s is None
        return
    with pytest.raises(BadReport) as refused:
        read(sweep)
    assert str(refused.value).startswith(f"{sweep}: ")
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_file_that_is_no_report_is_named(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert main([str(path), "--rate", "9"]) == 2
    assert f"k8s.autoscaling: {path}: " in capsys.readouterr().err
    assert main([str(tmp_path / "none.json"), "--rate", "9"]) == 2
    assert "give the sweep.json or result.json" in capsys.readouterr().err


def test_planned_rates_are_below_the_highest() -> None:
    with pytest.raises(ValueError, match="must be at most 2"):
        Replica((Run(2, 1, 0),), None, ()).in_flight_at(math.nextafter(2, 3))
