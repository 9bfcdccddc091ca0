"""The whole comparison of models, as a smoke test: that it runs and counts, never how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.artifacts import CACHE, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in (".", "client", "server"))


def test_a_quick_run_compares_every_model_under_every_load(tmp_path: Path) -> None:
    file = tmp_path / "bench-models.json"
    command = [sys.executable, "-m", "loadtest.models", "--quick", "--build", "gpt2,bart-large"]
    done = subprocess.run(
        [*command, "--json", str(file)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    loads = [(s["model"], s["side"], s["load"]["beams"], s["load"]["requests"]) for s in found["samples"]]
    sides = ("transformers", "triton")
    greedy = [
        (model, side, 1, n) for model in ("tiny-gpt2", "tiny-bart-base") for n in (1, 8) for side in sides
    ]
    beams = [("tiny-bart-base", side, 4, n) for n in (1, 4) for side in sides]
    assert loads == greedy + beams
    assert all(sample["tokens"] == 8 * sample["load"]["requests"] for sample in found["samples"])
    assert [build["model"] for build in found["builds"]] == ["tiny-gpt2", "tiny-bart-large"]
    assert not [verdict["name"] for verdict in found["verdicts"] if verdict["met"] is None]
    assert not list(CACHE.glob("tiny-bart-large-*"))
