"""The study as a smoke test, and its command of the engine in process: that they run, never how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.artifacts import ROOT, engine_of
from loadtest.program import Answer, Program
from tests.e2e.artifacts import built

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in (".", "client", "server"))


def _study(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.chunks", "--repository", str(built("int8")), *arguments]
    environment = {**os.environ, "PYTHONPATH": PATHS}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_quick_run_measures_both_sides(tmp_path: Path) -> None:
    file, picture = tmp_path / "chunks.json", tmp_path / "chunks.png"
    done = _study("--quick", "--sides", "engine,grpc", "--json", str(file), "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    rows = [(sample["side"], sample["variant"]) for sample in found["samples"]]
    assert rows == [("engine", "32"), ("grpc", "32"), ("engine", "128"), ("grpc", "128")]
    assert [len(sample["pieces"]) for sample in found["samples"]] == [7, 0, 2, 0]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Triton gRPC" in done.stdout


def test_an_unknown_parameter_is_refused() -> None:
    done = _study("--quick", "--also", "seats=8")
    assert done.returncode == 1
    assert "seats is no parameter" in done.stderr


def _arrive(engine: Program, streams: int, prompt: int, lead: int, max_tokens: int) -> Answer:
    prompts = [[100 + i] * 20 for i in range(streams)]
    return engine.ask(
        do="arrive",
        prompts=prompts,
        prompt=list(range(1000, 1000 + prompt)),
        lead=lead,
        max_tokens=max_tokens,
    )


def test_a_prompt_arrives_when_the_streams_have_their_lead(tmp_path: Path) -> None:
    parameters = '{"prefill_chunk": "16", "slots": "4"}'
    command = [
        sys.executable,
        "server/inprocess.py",
        str(engine_of(built("int8"))),
        "--parameters",
        parameters,
    ]
    with Program("the engine", command, tmp_path / "log") as engine:
        found = _arrive(engine, 2, 50, lead=5, max_tokens=500)
        before = [sum(n for at, n in stream if at <= found["arrived"]) for stream in found["streams"]]
        assert min(before) >= 5
        assert all(stream[-1][0] > found["answer"][0][0] for stream in found["streams"])
        assert all(sum(n for _, n in stream) < 500 for stream in found["streams"])
        assert [piece[:2] for piece in found["pieces"]] == [[0, 16], [16, 16], [32, 16], [48, 2]]
        alone = _arrive(engine, 0, 70, lead=0, max_tokens=8)
        assert alone["streams"] == []
        # The 50 tokens that it has in common with the prompt before are in the prefix cache.
        assert [piece[:2] for piece in alone["pieces"]] == [[50, 16], [66, 4]]
