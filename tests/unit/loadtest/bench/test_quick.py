"""Whole runs of the benchmark, as smoke tests: that they run, count and score, never how fast."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from loadtest.artifacts import CACHE, engine_of
from loadtest.bench.engines import OFFLINE, Engines
from loadtest.bench.plan import SMOLLM2
from loadtest.bench.program import Program
from tests.live.artifacts import built
from tests.paths import PYTHONPATH, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
TOKENS_OUT = 24


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.bench", "--quick", "--repository", str(built("int8"))]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def _found(tmp_path: Path, *arguments: str) -> tuple[Any, str]:
    file = tmp_path / "bench.json"
    done = _bench("--json", str(file), *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert all(sample["tokens"] == TOKENS_OUT * sample["streams"] for sample in found["samples"])
    assert found["prefix_cache_hits"] == 0
    return found, done.stdout


def _unmeasured(found: Any) -> list[str]:
    return [verdict["name"] for verdict in found["verdicts"] if verdict["met"] is None]


def test_a_quick_run_measures_every_row(tmp_path: Path) -> None:
    found, shown = _found(tmp_path)
    assert "Triton gRPC" in shown
    rows = {(sample["row"], sample["streams"]) for sample in found["samples"]}
    assert rows == {(row, streams) for row in ("engine", "grpc", "http") for streams in (1, 8)}
    assert len(found["samples"]) == len(rows)
    assert _unmeasured(found) == ["tokens/s, smollm2, 1 at once: Triton gRPC / transformers"]


def test_a_quick_run_compares_every_model_under_every_load(tmp_path: Path) -> None:
    found, _ = _found(tmp_path, "--models", "gpt2,bart-base,bart-large")
    loads = [(s["model"], s["row"], s["beams"], s["streams"]) for s in found["samples"]]
    rows = ("transformers", "grpc")
    greedy = [(model, row, 1, n) for model in ("tiny-gpt2", "tiny-bart-base") for n in (1, 8) for row in rows]
    beams = [("tiny-bart-base", row, 4, n) for n in (1, 4) for row in rows]
    assert loads == greedy + beams
    assert [build["model"] for build in found["builds"]] == ["tiny-gpt2", "tiny-bart-large"]
    assert not _unmeasured(found)
    assert not list(CACHE.glob("tiny-bart-large-*"))


def test_our_other_rows_search_with_beams_too(tmp_path: Path) -> None:
    found, _ = _found(tmp_path, "--models", "bart-base", "--rows", "engine,http")
    loads = [(s["row"], s["beams"], s["streams"]) for s in found["samples"]]
    assert loads == [
        (row, beams, n) for beams, n in ((1, 1), (1, 8), (4, 1), (4, 4)) for row in ("engine", "http")
    ]


def test_a_quick_comparison_converts_scores_and_measures(tmp_path: Path) -> None:
    rows = ["engine", "engine-drafts", "transformers", "grpc"]
    picture = tmp_path / "bench.png"
    found, _ = _found(tmp_path, "--score", "--streams", "1", "--rows", ",".join(rows), "--png", str(picture))
    assert [sample["row"] for sample in found["samples"]] == rows
    assert found["quality"]["transformers"]["loss"] == 0
    assert 5 < found["quality"]["transformers"]["perplexity"] < 50
    assert found["missing"] == {}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_profile_names_the_call_of_the_model() -> None:
    done = _bench("--profile")
    assert done.returncode == 0, done.stderr
    assert re.search(r"kernel_runner\.py:\d+\(_run\)|run_with_iobinding", done.stdout)


def test_transformers_answers_with_the_same_weights(tmp_path: Path) -> None:
    repository = built("int8")
    tokenizer = Tokenizer.from_file(str(engine_of(repository) / "tokenizer.json"))
    prompt = tokenizer.encode("The capital of France is").ids
    checkpoint = Engines(CACHE, repository).checkpoint(SMOLLM2)
    command = [sys.executable, "-m", "loadtest.bench.side_transformers", str(checkpoint), "2"]
    with Program("transformers", command, tmp_path / "log", OFFLINE) as program:
        answer = program.ask(do="generate", prompts=[prompt, prompt], max_tokens=2, num_beams=1)
    assert [tokenizer.decode(ids) for ids in answer["ids"]] == [" Paris."] * 2
    assert [len(stream) for stream in answer["streams"]] == [2, 2]
