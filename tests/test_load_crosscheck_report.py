"""The cross-check's table and JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from loadtest.crosscheck import report
from loadtest.crosscheck.__main__ import main
from loadtest.crosscheck.figures import Figures
from loadtest.crosscheck.plan import TOOLS, Plan
from loadtest.crosscheck.runs import Run

PLAN = Plan(repeats=3)


def runs(aiperf_factor: float = 1.0, *, cached: bool = False) -> list[Run]:
    """Three repeats of each load and tool, with noise of a tenth; aiperf's TTFT is off by a factor."""
    found = []
    for load in PLAN.loads:
        for tool in TOOLS:
            for repeat, noise in enumerate((0.95, 1.0, 1.05)):
                ttft_s = 0.15 * noise * (aiperf_factor if tool == "aiperf" else 1)
                figures = Figures(ttft_s, 0.02 * noise, 1.4 * noise, 180 / noise)
                printed = replace(figures, tokens_per_s=170 / noise)
                found.append(Run(load, tool, repeat, 40, figures, printed, 5.0, cached))
    return found


def shown(found: list[Run]) -> str:
    output = io.StringIO()
    report.show(PLAN, found, Console(file=output))
    return output.getvalue()


def test_tools_that_are_alike_agree() -> None:
    assert report.agree(PLAN, runs())
    text = shown(runs())
    rows = [line.split() for line in text.splitlines() if line.startswith("  TTFT")]
    assert rows[0] == [
        "TTFT",
        "p50,",
        "ms",
        "150",
        "142–158",
        "150",
        "142–158",
        "+0.0%",
        "10.0%",
        "agree",
        "150",
        "150",
    ]
    assert text.count("agree") == 9
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_one_figure_that_differs_is_a_difference() -> None:
    assert not report.agree(PLAN, runs(1.2))
    text = shown(runs(1.2))
    assert text.count("differ ") >= 2
    assert "the tools differ by more than their repeats do" in text


def test_a_difference_within_the_spread_is_none() -> None:
    assert report.agree(PLAN, runs(1.05))


def test_prompts_from_the_cache_are_told() -> None:
    assert "prompts of 12 runs were in the prefix cache" in shown(runs(cached=True))
    assert "prefix cache" not in shown(runs())


def test_the_json_has_every_run_and_the_verdicts() -> None:
    content = json.loads(json.dumps(report.to_json(PLAN, {}, {"aiperf": "0.13.0"}, runs(1.2))))
    assert len(content["runs"]) == 12
    assert content["agree"] is False
    assert {row["name"]: row["agrees"] for row in content["agreements"]["open"]} == {
        "ttft_p50_s": False,
        "itl_mean_s": True,
        "e2e_p50_s": True,
        "tokens_per_s": True,
    }
    assert content["agreements"]["open"][0]["difference"] == pytest.approx(0.15 - 0.18)


@pytest.mark.parametrize(
    "arguments",
    [["--repeats", "1"], ["--rate", "0"], ["--rate", "nan"], ["--loads", "half"], ["--duration", "-1"]],
)
def test_a_command_at_fault_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"argument {arguments[0]}: {arguments[1]}, must be" in capsys.readouterr().err
