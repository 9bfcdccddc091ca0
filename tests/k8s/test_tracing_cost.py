from __future__ import annotations

import subprocess
import sys

import pytest

from k8s.tracing_cost import lines


def test_rates_are_compared_round_by_round() -> None:
    off, on = lines({"off": [100.0, 200.0, 400.0], "on": [90.0, 180.0, 360.0]})
    assert off == "off: median 200 tokens/s, 100 to 400; ratio 1.000, quartiles 1.000 to 1.000"
    assert on == "on: median 180 tokens/s, 90 to 360; ratio 0.900, quartiles 0.900 to 0.900"


@pytest.mark.parametrize("arguments", [["localhost:8001"], ["off=localhost:1", "--rounds", "1"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "k8s.tracing_cost", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must be" in done.stderr
