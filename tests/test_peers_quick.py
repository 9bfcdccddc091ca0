"""The comparison with transformers alone, as a smoke test: that it runs and scores, never how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.artifacts import ROOT
from tests.e2e.artifacts import built

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in (".", "client", "server"))


def test_a_quick_run_converts_scores_and_measures(tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "peers.json"), "--png", str(tmp_path / "peers.png")]
    command = [sys.executable, "-m", "loadtest.peers", "--quick", "--peers", "transformers", "--streams", "1"]
    done = subprocess.run(
        [*command, "--repository", str(built("int8")), *files],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "peers.json").read_text())
    assert {sample["row"] for sample in found["samples"]} == {
        "engine",
        "engine-drafts",
        "grpc",
        "transformers",
    }
    assert all(sample["tokens"] == 16 for sample in found["samples"])
    assert found["quality"]["transformers"]["loss"] == 0
    assert 5 < found["quality"]["transformers"]["perplexity"] < 50
    assert found["missing"] == {}
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
