"""Three real servers behind nginx and Envoy: restarted one by one and killed, under load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k8s.failover.scenarios import Scenario
from tests.e2e.artifacts import ROOT, built

# Minutes of real restarts; the limit is there for a machine that is shared.
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "client")])


@dataclass(frozen=True, slots=True)
class Run:
    """The program's exit code, the accounts in its JSON, and all that it said."""

    code: int
    plays: list[dict[str, Any]]
    said: str

    def of(self, scenario: Scenario) -> list[dict[str, Any]]:
        return [play["account"] for play in self.plays if play["scenario"] == scenario.value]


def _run(folder: Path, *arguments: str) -> Run:
    out = folder / "failover.json"
    command = [sys.executable, "-m", "k8s.failover", "--json", str(out), *arguments]
    command += ["--model-repository", str(built("int8"))]
    environment = {**os.environ, "PYTHONPATH": PATHS}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate()
        finally:
            process.terminate()  # it ends its servers; of one that has ended this does nothing
    assert out.exists(), said
    return Run(process.returncode, json.loads(out.read_text())["plays"], said)


@pytest.fixture(scope="module")
def run(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both balancers before one fleet: a rolling restart of which they learn late, and a kill."""
    return _run(tmp_path_factory.mktemp("failover"), "--play", "late", "--play", "kill")


def test_a_rolling_restart_loses_no_request(run: Run) -> None:
    restarted = run.of(Scenario.LATE)
    assert len(restarted) == 4, run.said  # two balancers, two protocols
    for account in restarted:
        assert account["sent"] > 10, run.said
        assert account["completed"] == account["sent"], run.said


def test_a_kill_fails_streams_past_their_first_token_on_that_server_alone(run: Run) -> None:
    killed = run.of(Scenario.KILL)
    assert len(killed) == 4, run.said
    for account in killed:
        assert account["failed_otherwise"] == 0, run.said
        assert account["failed_after_first"] <= account["on_victim_streaming"], run.said
    # It was killed with its slots and its queue in use, and both kinds of requests were told of it.
    assert sum(account["failed_after_first"] for account in killed) > 0, run.said
    assert sum(account["moved"] + account["retried"] for account in killed) > 0, run.said
    assert run.code == 0, run.said


def test_without_the_hook_requests_are_refused(tools: Path, tmp_path: Path) -> None:
    """A restart again, so that the tests before are known to be able to fail."""
    run = _run(tmp_path, "--balancer", "nginx", "--servers", "2", "--play", "careless")
    assert sum(sum(account["errors"].values()) for account in run.of(Scenario.CARELESS)) > 0, run.said
