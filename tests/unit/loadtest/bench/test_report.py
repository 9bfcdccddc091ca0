"""Tables, JSON and chart of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench import chart, report
from loadtest.bench.engines import Build
from loadtest.bench.measure import Found
from loadtest.bench.plan import COMPARED, MODELS, PEERS, Plan, greedy
from loadtest.bench.quality import Quality
from tests.unit.loadtest.bench.machine import MACHINE, QUALITIES, footprint, manifest, sample

QUALITY = {"perplexity": 12.6, "reference_perplexity": 12.5}
SMOLLM2 = {"smollm2": manifest("smollm2", QUALITY)}
PEERS_PLAN = Plan(models=(replace(COMPARED, loads=greedy((1, 8))),), peers=PEERS, score=True, repeats=1)
PEERS_FOUND = Found(
    [
        sample("engine", 1, 150),
        sample("engine", 8, 400),
        sample("openvino", 8, 900),
        sample("openvino-tuned", 8, 320),
        sample("grpc", 8, 390),
        sample("server-q8_0", 8, 300),
    ],
    manifests=SMOLLM2,
    losses={"openvino": [[1.0]]},
    missing={"ort-int8": "it is not installed"},
    bandwidth=27e9,
    idle_cores=0.5,
)


def _json(plan: Plan, found: Found, qualities: dict[str, Quality]) -> Any:
    content = report.to_json(plan, MACHINE, found, qualities)
    return json.loads(json.dumps(content, allow_nan=False))


def test_a_run_of_one_model_as_json_and_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    samples = [sample("grpc", 8, 190), sample("grpc", 1, 100), sample("engine", 8, 200)]
    found = Found(samples, manifests=SMOLLM2, footprint=footprint(2_000_000_000))
    content = _json(Plan(), found, {})
    assert content["samples"][0]["tokens_per_s"] == pytest.approx(190)
    assert {verdict["met"] for verdict in content["verdicts"]} == {True, False, None}
    report.show(Plan(), MACHINE, found, {})
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
    report.show(Plan(), MACHINE, replace(found, hits=64.0), {})
    assert "64 prompt tokens came from the prefix cache" in capsys.readouterr().out


def test_a_run_of_several_models_as_json_and_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    models = MODELS["gpt2"], MODELS["bart-base"]
    plan = Plan(models=models)
    samples = [
        replace(sample(row, load.streams, rate), model=model.name, beams=load.beams)
        for model in models
        for load in model.loads
        for row, rate in (("transformers", 20), ("grpc", 70))
    ]
    manifests = {model.name: manifest(model.name, QUALITY, 124_439_808) for model in models}
    found = Found(samples, builds=[Build("gpt2", 30.0, 10**9)], manifests=manifests)
    content = _json(plan, found, {})
    assert len(content["samples"]) == 12
    assert {verdict["met"] for verdict in content["verdicts"]} == {True, False}
    report.show(plan, MACHINE, found, {})
    shown = capsys.readouterr().out
    for text in ("gpt2 (124M), server: 128 tokens in", "4 beams, 4", "Triton gRPC", "3.500", "missed"):
        assert text in shown


def test_the_tables_flag_what_is_lossy_missing_or_busy(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(PEERS_PLAN, MACHINE, PEERS_FOUND, QUALITIES)
    lines = capsys.readouterr().out.splitlines()
    shown = " ".join(" ".join(lines).split())
    for part in (
        "OpenVINO GenAI int8, tuned",
        "+1.22 ±0.20",
        "ort-int8 is missing: it is not installed",
        "took 0.50 of a core",
        "27 GB/s",
        "at 200 tokens/s",
        "llama-server Q8_0",
    ):
        assert part in shown
    assert not [line for line in lines if "…" in line]


def test_the_json_has_everything_and_reads_again() -> None:
    content = _json(PEERS_PLAN, PEERS_FOUND, QUALITIES)
    assert content["quality"]["openvino"]["comparable"] is False
    assert content["missing"] == PEERS_FOUND.missing
    assert content["roofline"]["tokens_per_s"] == pytest.approx(200)
    assert len(content["samples"]) == len(PEERS_FOUND.samples)
    assert {"name", "value", "met"} <= content["verdicts"][0].keys()


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    chart.draw(PEERS_PLAN, PEERS_FOUND, QUALITIES, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    models = Plan(models=(MODELS["gpt2"], MODELS["bart-base"]))
    chart.draw(models, Found(), {}, tmp_path / "models.png")
    assert (tmp_path / "models.png").read_bytes().startswith(b"\x89PNG")
