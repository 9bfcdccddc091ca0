"""Checkpoints and engines of the compared models, kept in the cache; what a build takes, measured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.artifacts import ROOT, builder_digest, engine_of
from loadtest.errors import BenchError
from loadtest.models.plan import PRECISION, Shape

_WRITER = Path(__file__).with_name("checkpoint.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1"}
# Logits of random weights are all but equal: which is the greatest says nothing. Perplexity does.
_LIMITS = f"[limits.{PRECISION}]\nperplexity = 1.1\nagreement = 0.0\n"
_TASKS = {"gpt2": "complete", "bart": "summarize"}


@dataclass(frozen=True, slots=True)
class Build:
    """`peak_bytes` is the most memory the process held, pages of mapped files included."""

    model: str
    seconds: float
    peak_bytes: int


class Engines:
    """Of one cache folder, for the builder as it stands now. What has become stale is made anew."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._builder = builder_digest()
        self._writer = (ROOT / "requirements.lock").read_bytes() + _WRITER.read_bytes()

    def checkpoint(self, shape: Shape) -> Path:
        """The folder, written by transformers; BenchError when that fails."""
        folder = self._cache / f"{shape.name}-checkpoint-{self._written_from(shape)}"
        if not folder.is_dir():
            self._forget(f"{shape.name}-checkpoint-")
            print(f"writing a checkpoint of {shape.name} with random weights", file=sys.stderr)
            unfinished = self._cache / f"{shape.name}-checkpoint-unfinished"
            _write(shape, unfinished, self._cache / "checkpoint.log")
            unfinished.rename(folder)
        return folder

    def repository(self, shape: Shape) -> Path:
        """A model repository with its engine in it, built where there is none."""
        found = self._repository(shape)
        if not (engine_of(found, shape.name) / "manifest.json").is_file():
            self.build(shape)
        return found

    def build(self, shape: Shape) -> Build:
        """Builds it, whether it is there or not; BenchError when the build fails."""
        checkpoint, target = self.checkpoint(shape), self._repository(shape)
        recipe = self._cache / f"{shape.name}.toml"
        recipe.write_text(_recipe(shape, checkpoint), "utf-8")
        self._forget(f"{shape.name}-{PRECISION}-")
        print(f"building {shape.name} in {PRECISION}", file=sys.stderr)
        return _build(shape, recipe, target)

    def manifest(self, shape: Shape) -> dict[str, Any]:
        path = engine_of(self._repository(shape), shape.name) / "manifest.json"
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return content

    @contextmanager
    def passing(self, shape: Shape) -> Iterator[None]:
        """Removes the model's checkpoint and engine at the end: they may take gigabytes."""
        try:
            yield
        finally:
            self._forget(f"{shape.name}-")

    def _repository(self, shape: Shape) -> Path:
        state = f"{self._builder}{self._written_from(shape)}".encode()
        return self._cache / f"{shape.name}-{PRECISION}-{hashlib.sha256(state).hexdigest()[:16]}"

    def _written_from(self, shape: Shape) -> str:
        return hashlib.sha256(self._writer + _json(shape).encode()).hexdigest()[:16]

    def _forget(self, prefix: str) -> None:
        for stale in self._cache.glob(f"{prefix}*"):
            shutil.rmtree(stale)


def _json(shape: Shape) -> str:
    return json.dumps(asdict(shape), sort_keys=True)


def _write(shape: Shape, folder: Path, log: Path) -> None:
    command = [sys.executable, "-m", "loadtest.models.checkpoint", _json(shape), str(folder)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | _OFFLINE, stdout=output, stderr=output, check=False
        )
    if done.returncode != 0:
        raise BenchError(f"the checkpoint of {shape.name} could not be written: {log} says why")


def _recipe(shape: Shape, checkpoint: Path) -> str:
    lines: Mapping[str, str] = {
        "name": shape.name,
        "task": _TASKS[shape.family],
        "precision": PRECISION,
        "source": str(checkpoint),
        "licence": "none: random weights",
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()) + "\n" + _LIMITS


def _build(shape: Shape, recipe: Path, repository: Path) -> Build:
    command = [sys.executable, "-m", "build", str(recipe), "--repository", str(repository)]
    began = time.monotonic()
    code, peak = run_measured(command)
    if code != 0:
        raise BenchError(f"the engine of {shape.name} could not be built: python -m build {recipe} says why")
    return Build(shape.name, time.monotonic() - began, peak)


def run_measured(command: Sequence[str]) -> tuple[int, int]:
    """Runs it in the repository's root; its exit code, and the most memory it held, in bytes."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024
