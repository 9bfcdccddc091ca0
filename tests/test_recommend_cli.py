"""`python -m build recommend` as it is typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from build.cli import main
from build.recommend.devices import DEVICES

ROOT = Path(__file__).parent.parent
BENCH = {
    "machine": {"cpu": "A CPU", "cores": 2, "date": "2026-11-23T12:00:00+0000"},
    "plan": {"default_slots": 16, "max_context": 2048, "tokens_in": 128, "tokens_out": 64},
    "samples": [
        {"row": "engine", "streams": 1, "tokens_per_s": 100.0, "decode_tokens_per_s": 120.0},
        {"row": "engine", "streams": 1, "tokens_per_s": 104.0, "decode_tokens_per_s": 124.0},
        {"row": "engine", "streams": 8, "tokens_per_s": 220.0, "decode_tokens_per_s": 420.0},
        {"row": "engine", "streams": 32, "tokens_per_s": 215.0, "decode_tokens_per_s": None},
        {"row": "grpc", "streams": 1, "tokens_per_s": 90.0, "decode_tokens_per_s": 99.0},
        {"row": "transformers", "streams": 1, "tokens_per_s": 13.0, "decode_tokens_per_s": 14.0},
    ],
    "footprint": {"filled": {"pss": 2_100_000_000}},
}
MODELS = {
    "machine": BENCH["machine"],
    "plan": {"tokens_out": 64, "cases": [{"shape": {"name": "bart-base"}, "tokens_in": 256}]},
    "samples": [
        {"model": "bart-base", "side": side, "load": {"beams": beams, "requests": 1}, "tokens_per_s": rate}
        for side, beams, rate in (("triton", 1, 120.0), ("triton", 4, 60.0), ("transformers", 1, 26.0))
    ],
}
MANIFEST = {
    "name": "smollm2",
    "precision": "int8",
    "size_bytes": 262_000_000,
    "quality": {"perplexity": 10.71, "reference_perplexity": 10.72},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where nothing has been built or measured."""
    monkeypatch.chdir(tmp_path)
    return ["recommend", "--repository", "repository"]


@pytest.fixture
def measured(here: list[str], tmp_path: Path) -> list[str]:
    folder = tmp_path / "repository/smollm2_engine/1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "bench.json").write_text(json.dumps(BENCH))
    (tmp_path / "bench-models.json").write_text(json.dumps(MODELS))
    return here


def test_the_table_fits_100_columns(here: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*here, "--device", "h100", "--explain"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    for word in ("llama-3.2-1b-instruct", "Llama 3.2", "(gated)", "fp16", "licence", "step(16) = ", "989"):
        assert word in out
    assert "bart-base: pretrained for no task" in out


def test_the_best_is_first_and_the_others_say_why_not(
    here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    need = ["--task", "chat", "--memory", "3GiB", "--device", "cpu-server"]
    assert main([*here, *need]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[0] for line in lines if " int8 " in line and "fit:" not in line]
    assert rows == ["qwen2.5-0.5b-instruct", "smollm2"]
    assert any(line.startswith("qwen3-0.6b: int8 does not fit: needs 8.") for line in lines)


def test_nothing_that_fits_is_exit_code_1(here: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*here, "--memory", "100MiB", "--device", "cpu-server"]) == 1
    out = capsys.readouterr().out
    assert out.count("does not fit") == out.count("one slot is too much, too") > 5


def test_json_has_every_figure(here: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*here, "--json", "--device", "l4", "--task", "complete"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["device"]["title"] == "NVIDIA L4"
    assert found["memory_bytes"] == 24 * 10**9
    assert [model["name"] for model in found["models"]] == ["gemma3-270m", "gpt2", "distilgpt2"]
    best = found["models"][1]
    memory = best["memory_bytes"]
    parts = sum(size for name, size in memory.items() if name != "total")
    assert (memory["total"], best["fits"], best["reasons"]) == (parts, True, [])
    assert best["serving"] == {"slots": 16, "context": 1024, "source": 0}
    assert (best["licence"], best["measured"]) == ("MIT", {"benches": []})
    assert 0 < best["tokens_per_s"]["one"] < best["tokens_per_s"]["full"]


def test_what_was_measured_is_shown(measured: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    need = ["--memory", "16GiB", "--device", "cpu-server"]
    assert main([*measured, *need]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "smollm2: built here: 0.24 GiB on disk, -0.1% perplexity" in out
    assert (
        "measured in process, 128 tokens in, 64 out: tokens/s 102 with 1, 220 with 8, 215 with 32;"
        " 2 GiB with all slots full; A CPU, 2 cores, 2026-11-23"
    ) in out
    assert "bart-base: measured Triton gRPC, 256 tokens in, 64 out: tokens/s 120 with 1; A CPU" in out


def test_json_has_what_was_measured(measured: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*measured, "--memory", "16GiB", "--device", "cpu-server", "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    smollm2, bart = models["smollm2"], models["bart-base"]
    assert smollm2["perplexity_ratio"] == {"ratio": 10.71 / 10.72, "measured": True}
    (run,) = smollm2["measured"]["benches"]
    assert [(r["through"], r["requests"], r["decode"]) for r in run["tokens_per_s"]] == [
        ("in process", 1, 122.0),
        ("in process", 8, 420.0),
        ("in process", 32, None),
        ("Triton gRPC", 1, 99.0),
    ]
    (run,) = bart["measured"]["benches"]
    assert [(r["beams"], r["whole"]) for r in run["tokens_per_s"]] == [(1, 120.0), (4, 60.0)]


def test_measurements_of_another_precision_are_not_its(
    measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    need = ["--task", "chat", "--memory", "16GiB", "--device", "cpu-server", "--precision", "fp32"]
    assert main([*measured, *need]) == 0
    out = capsys.readouterr().out
    assert "smollm2" in out
    assert "measured" not in out


def test_a_manifest_that_says_nothing_is_passed_over(
    measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "repository/broken_engine/1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    assert main([*measured, "--device", "h100"]) == 0
    assert "broken" not in capsys.readouterr().out


def test_the_check_prints_ratios(measured: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--check"]) == 0
    out = capsys.readouterr().out
    rows = [
        line for line in out.splitlines() if line.strip().startswith(("smollm2 int8, ", "bart-base int8, "))
    ]
    assert len(rows) == 4 + 3 + 2 + 1
    assert all(float(row.split()[-1]) > 0 for row in rows)
    assert "bart-base int8, 1 stream of 4 beams, Triton gRPC: tokens/s" in out
    assert "smollm2 int8, 16 slots full: memory" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "--device: 'tpu', must be one of cpu, h100, h100-pcie, h200, a100-40"),
        (["--device", "cpu-server"], "--memory: missing; cpu-server is no machine in particular"),
        (["--device", "h100", "--precision", "fp32"], "--precision: fp32, engines for h100 take fp16"),
        (["--device", "t4", "--precision", "fp8"], "--precision: fp8, engines for t4 take fp16, int8, int4"),
        (["--bench", "absent.json"], "absent.json: No such file or directory; `make bench` writes bench"),
        (["--bench", str(ROOT / "README.md")], f"{ROOT / 'README.md'}: is no JSON of `make bench`"),
        (["--bench", str(ROOT / "build")], f"{ROOT / 'build'}: Is a directory"),
        (["--check"], "--check: no bench.json and no bench-models.json here: run `make bench`, or give"),
    ],
)
def test_a_faulty_need_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    here: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*here, "--device", "l4", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "8 apples"], "argument --memory: '8 apples', must be a size such as 8GiB"),
        (["--slots", "0"], "argument --slots: '0', must be a whole number in [1, 1024]"),
        (["--slots", "1025"], "argument --slots: '1025', must be"),
        (["--context", "1.5"], "argument --context: '1.5', must be a whole number"),
        (["--quality", "0.9"], "argument --quality: '0.9', must be a ratio of at least 1"),
        (["--quality", "good"], "argument --quality: 'good', must be a number"),
        (["--quality", "nan"], "argument --quality: 'nan', must be a ratio"),
        (["--latency-ms", "0"], "argument --latency-ms: '0', must be a number above 0"),
        (["--latency-ms", "inf"], "argument --latency-ms: 'inf', must be a number above 0"),
        (["--task", "sing"], "argument --task: invalid choice: 'sing'"),
        (["--precision", "gguf"], "argument --precision: invalid choice: 'gguf'"),
    ],
)
def test_a_faulty_number_names_its_option(
    arguments: list[str], message: str, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*here, *arguments])
    assert message in capsys.readouterr().err


def test_the_help_has_examples() -> None:
    command = [sys.executable, "-m", "build", "recommend", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m build recommend --task chat --memory 8GiB --device cpu" in shown


def test_the_page_has_every_device_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "choosing.md").read_text("utf-8")
    assert [name for name in DEVICES if f"`{name}`" not in page] == []
    with pytest.raises(SystemExit, match="0"):
        main(["recommend", "--help"])
    options = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out))
    assert set(re.findall(r"`(--[a-z-]+)`", page)) <= options
