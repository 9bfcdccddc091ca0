"""What a test run takes, and what the programs that it starts inherit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.paths import ROOT

TIMED = "test_the_calibrated_times_fit_a_server"
IGNORED = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import tests.conftest
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_an_ignored_ctrl_c_is_heard_again() -> None:
    subprocess.run([sys.executable, "-c", IGNORED], cwd=ROOT, env=_environment(), check=True)


@pytest.mark.parametrize(
    ("marks", "asked", "taken"),
    [
        (["-m", "e2e"], {}, False),
        (["-m", "timing"], {}, True),
        ([], {"HALIMEDE_TIMING": "1"}, True),
    ],
)
def test_tests_of_the_wall_clock_run_where_they_are_asked_for(
    marks: list[str], asked: dict[str, str], taken: bool
) -> None:
    file = "tests/k8s/test_autoscaling_live.py"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", file, *marks]
    listed = subprocess.run(
        command, cwd=ROOT, env=_environment() | asked, capture_output=True, text=True, check=True
    )
    assert (TIMED in listed.stdout) == taken, listed.stdout


def _environment() -> dict[str, str]:
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "client", "server"))
    return {name: value for name, value in os.environ.items() if name != "HALIMEDE_TIMING"} | {
        "PYTHONPATH": paths
    }
