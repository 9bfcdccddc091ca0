"""The whole benchmark, as a smoke test: that it runs and counts, never how fast."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from loadtest.artifacts import ROOT, engine_of
from loadtest.program import Program
from tests.e2e.artifacts import built

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in (".", "client", "server"))


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.bench", "--quick", "--repository", str(built("int8"))]
    environment = {**os.environ, "PYTHONPATH": PATHS}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_quick_run_measures_every_row(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    done = _bench("--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "Triton gRPC" in done.stdout
    found = json.loads(file.read_text())
    rows = {(sample["row"], sample["streams"]) for sample in found["samples"]}
    assert rows == {(row, streams) for row in ("engine", "grpc", "http") for streams in (1, 8)}
    assert all(sample["tokens"] == 24 * sample["streams"] for sample in found["samples"])
    assert found["prefix_cache_hits"] == 0
    unmeasured = [verdict["name"] for verdict in found["verdicts"] if verdict["met"] is None]
    assert unmeasured == ["tokens/s, 1 stream: Triton gRPC / transformers fp32"]


def test_a_profile_names_the_call_of_the_model() -> None:
    done = _bench("--profile")
    assert done.returncode == 0, done.stderr
    assert re.search(r"runner_kernels\.py:\d+\(_run\)|run_with_iobinding", done.stdout)


def test_transformers_answers_with_the_same_weights(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(engine_of(built("int8")) / "tokenizer.json"))
    prompt = tokenizer.encode("The capital of France is").ids
    command = [sys.executable, "-m", "loadtest.bench.reference", "2"]
    with Program("transformers", command, tmp_path / "log", {"HF_HUB_OFFLINE": "1"}) as program:
        answer = program.ask(prompts=[prompt, prompt], max_tokens=2)
    assert [tokenizer.decode(ids) for ids in answer["ids"]] == [" Paris."] * 2
    assert [len(stream) for stream in answer["streams"]] == [2, 2]
