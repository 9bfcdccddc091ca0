"""The chart's autoscalers rehearsed through a live Prometheus, and the calibration on a live tritonserver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from k8s.autoscaling import chart, measure, strategies
from k8s.autoscaling.__main__ import main
from k8s.autoscaling.arrivals import chat, poisson
from k8s.autoscaling.calibration import Calibration, load
from k8s.autoscaling.fleet import Fleet, Start
from k8s.autoscaling.prometheus import Prometheus, PrometheusFault
from k8s.autoscaling.rehearsal import Setting, Slo, rehearse
from k8s.autoscaling.replica import Request, StepTimes
from k8s.autoscaling.report import read
from k8s.autoscaling.scaler import Scaler
from k8s.autoscaling.server import Unmeasured, served
from k8s.autoscaling.tally import Place, page
from tests.e2e.artifacts import MODEL, built
from tests.test_autoscaling_fleet import SMALL

TIMES = StepTimes(replace(SMALL, slots=8, max_queue=16))
# Two minutes of quiet, two of more than one replica can do.
SHAPE = [(0, 0.2), (120, 0.2), (120, 6), (240, 6), (240, 0.2), (300, 0.2)]
SETTING = Setting(TIMES, Start(20, 2), Slo(), seconds=300, tail_s=60)


@pytest.fixture
def prometheus(tools: Path, tmp_path: Path) -> Iterator[Prometheus]:
    with Prometheus(tools / "prometheus", tmp_path, time.time() - 600) as started:
        yield started


def chart_scaler(tools: Path, name: str) -> Scaler:
    (found,) = [one for one in chart.scalers(tools / "helm4", 2.0) if name in one.name]
    return found


def test_prometheus_answers_what_the_replicas_had(prometheus: Prometheus) -> None:
    """The sum of the chart's queue, a rate over simulated time, and nothing of a pod that is gone."""
    fleet = Fleet(TIMES, Start(1, 1), 2, [Request(at / 4, 300, 60) for at in range(200)])
    for at_s in (15.0, 30.0, 45.0):
        fleet.advance(at_s)
        prometheus.take(page(fleet.series(Place()), prometheus.unix(at_s)), at_s)
    waiting = sum(len(one.waiting) for one in fleet.replicas)
    assert waiting
    assert prometheus.scalar('sum(halimede_num_requests_waiting{namespace="halimede"})', 50) == waiting
    cores = prometheus.by_pod(strategies.CPU, 50)
    assert all(1.5 < value < 2.0 for value in cores.values())
    assert set(cores) == {pod.name for pod in fleet.pods}
    fleet.scale(1)
    fleet.advance(300)
    prometheus.take(page(fleet.series(Place()), prometheus.unix(300)), 300)
    left = prometheus.by_pod(strategies.gauge("num_requests_waiting"), 307.5)
    assert set(left) == {pod.name for pod in fleet.pods}
    assert len(left) == 1


@pytest.mark.parametrize("name", ["HPA", "KEDA"])
def test_the_charts_defaults_follow_a_burst(tools: Path, prometheus: Prometheus, name: str) -> None:
    scaler = chart_scaler(tools, name)
    outcome = rehearse(scaler, poisson(SHAPE, 1.0, chat, seed=5), SETTING, prometheus)
    sizes = [moment.wanted for moment in outcome.moments]
    assert sizes[:8] == [scaler.limits.minimum] * 8
    assert max(sizes) > scaler.limits.minimum
    assert max(sizes) <= scaler.limits.maximum


@pytest.mark.parametrize("name", ["HPA", "KEDA"])
def test_every_metric_of_the_chart_has_a_value(tools: Path, prometheus: Prometheus, name: str) -> None:
    fleet = Fleet(TIMES, Start(1, 1), 2, [Request(at / 4, 300, 60) for at in range(200)])
    for at_s in (15.0, 30.0, 45.0):
        fleet.advance(at_s)
        prometheus.take(page(fleet.series(Place()), prometheus.unix(at_s)), at_s)
    metrics = chart_scaler(tools, name).metrics
    assert len(metrics) == 4
    for metric in metrics:
        assert prometheus.scalar(metric.query, 50), f"{metric.query} has no value above 0"


def test_metrics_that_the_queries_do_not_match_scale_nothing(tools: Path, prometheus: Prometheus) -> None:
    """A planted mistake: the replicas run in another namespace than the one that is asked about."""
    setting = replace(SETTING, place=Place(namespace="elsewhere"))
    scaler = chart_scaler(tools, "HPA")
    outcome = rehearse(scaler, poisson(SHAPE, 1.0, chat, seed=5), setting, prometheus)
    assert {moment.wanted for moment in outcome.moments} == {scaler.limits.minimum}


def test_the_program_from_a_calibration_to_table_and_plot(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, result, png = (tmp_path / name for name in ("calibration.json", "result.json", "plot.png"))
    SMALL.save(kept)
    arguments = ["--calibration", str(kept), "--loads", "steps", "--scalers", "waiting:1,fixed:2"]
    places = ["--helm", str(tools / "helm4"), "--prometheus", str(tools / "prometheus")]
    assert main([*arguments, *places, "--json", str(result), "--png", str(png)]) == 0
    told = capsys.readouterr().out
    assert main(["--results", str(result), *places]) == 0
    assert capsys.readouterr().out == told
    waiting, fixed = read(result)["steps"]
    assert waiting.most_replicas > fixed.most_replicas == 2
    assert waiting.good > fixed.good
    assert png.stat().st_size


def test_a_query_that_is_none_is_told(prometheus: Prometheus) -> None:
    with pytest.raises(PrometheusFault, match="parse error"):
        prometheus.query("sum(", 0)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Calibration, list[str]]:
    """Of the real server, and what was said meanwhile."""
    said: list[str] = []
    folder = tmp_path_factory.mktemp("calibrated")
    return measure.calibrate(built("int8"), MODEL, folder, 1, said.append, load_s=8), said


@pytest.mark.e2e
@pytest.mark.slow
def test_the_real_server_is_calibrated(calibrated: tuple[Calibration, list[str]], tmp_path: Path) -> None:
    found, said = calibrated
    assert sum("| TTFT p50, s |" in line for line in said) == 2, "two loads beside the model"
    assert list(found.decode_s) == list(found.busy_cores) == [1, 2, 4, 8, 16]
    assert found.slots == 16
    assert all(seconds > 0 for seconds in (*found.decode_s.values(), *found.cold_start_s))
    assert min(found.request_s, found.prefill_call_s, found.prefill_token_s) >= 0
    assert len(found.cold_start_s) == 1
    found.save(tmp_path / "calibration.json")
    assert load(tmp_path / "calibration.json") == found


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timing
def test_the_calibrated_times_fit_a_server(calibrated: tuple[Calibration, list[str]]) -> None:
    found, _ = calibrated
    assert 1 <= found.slowdown < 2
    assert found.decode_s[1] < found.decode_s[16] < 16 * found.decode_s[1], "a batch is cheaper than turns"
    assert 0 < found.prefill_token_s < 0.1
    assert found.cold_start > 0.3
    assert found.busy_cores[1] > 10 * found.idle_cores


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(Unmeasured, match="did not become ready"),
        served(tmp_path, "nothing", tmp_path / "server.log"),
    ):
        pass
