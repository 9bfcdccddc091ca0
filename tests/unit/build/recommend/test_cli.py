"""`python -m build recommend` as it is typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from build.cli import main
from build.recommend.speed import DEVICES
from tests.paths import ROOT


def test_the_table_fits_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--device", "h100"]) == 0
    table, _, _ = capsys.readouterr().out.partition("bart-base: pretrained for no task")
    assert max(map(len, table.splitlines())) <= 100
    for word in (
        "llama-3.2-1b-instruct",
        "Llama 3.2",
        "(gated)",
        "(terms)",
        "fp16",
        "licence",
        "never compared with a GPU",
    ):
        assert word in table


def test_the_best_is_first_and_the_others_say_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    need = ["--task", "chat", "--memory", "3GiB", "--device", "cpu-server"]
    assert main(["recommend", *need]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[0] for line in lines if " int8 " in line and "fit:" not in line]
    assert rows == ["qwen2.5-0.5b-instruct", "smollm2"]
    assert any(line.startswith("qwen3-0.6b: int8 does not fit: needs 8.") for line in lines)


def test_this_machine_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--task", "chat", "--memory", "8GiB", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("this machine, ")
    assert "\nsmollm2 " in out
    assert "speeds may be 2.5 times off" in out


def test_nothing_that_fits_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--memory", "100MiB", "--device", "cpu-server"]) == 1
    out = capsys.readouterr().out
    assert out.count("does not fit") == out.count("one slot is too much, too") > 5


def test_json_has_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--json", "--device", "l4", "--task", "complete"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["device"] == "NVIDIA L4"
    assert found["memory_bytes"] == 24 * 10**9
    assert [model["name"] for model in found["models"]] == ["gemma3-270m", "gpt2", "distilgpt2"]
    gpt2 = found["models"][1]
    assert gpt2["memory_bytes"] == sum(gpt2["memory"].values())
    assert gpt2["served"] == {"slots": 16, "context": 1024, "source": 0}
    assert (gpt2["licence"], gpt2["reasons"]) == ("MIT", [])
    assert 0 < gpt2["one_tokens_per_s"] < gpt2["full_tokens_per_s"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "--device: 'tpu', must be one of cpu, h100, h100-pcie, h200, a100-40"),
        (["--device", "cpu-server"], "--memory: missing; cpu-server is no machine in particular"),
        (["--device", "h100", "--precision", "fp32"], "--precision: fp32, engines for h100 take fp16"),
        (["--device", "t4", "--precision", "fp8"], "--precision: fp8, engines for t4 take fp16, int8, int4"),
    ],
)
def test_a_faulty_need_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", *arguments]) == 2
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
        (["--task", "sing"], "argument --task: invalid choice: 'sing'"),
        (["--precision", "gguf"], "argument --precision: invalid choice: 'gguf'"),
    ],
)
def test_a_faulty_number_names_its_option(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["recommend", *arguments])
    assert message in capsys.readouterr().err


def test_the_help_has_examples() -> None:
    command = [sys.executable, "-m", "build", "recommend", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m build recommend --task chat --memory 8GiB --device cpu" in shown


def test_the_page_has_every_device_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "build.md").read_text("utf-8")
    page = page.partition("\n## Choose a model\n")[2].partition("\n## ")[0]
    assert [name for name in DEVICES if f"`{name}`" not in page] == []
    with pytest.raises(SystemExit, match="0"):
        main(["recommend", "--help"])
    options = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out))
    documented = set(re.findall(r"`(--[a-z-]+)`", page))
    assert documented == options - {"--help"}
