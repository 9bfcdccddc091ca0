"""What is measured: an int8 engine, built where there is none, and repositories that serve it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest.errors import BenchError

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"
MODEL = "smollm2"
PRECISION = "int8"


def engine_of(repository: Path, model: str = MODEL) -> Path:
    return repository / f"{model}_engine" / "1"


def manifest_of(repository: Path) -> dict[str, Any]:
    """BenchError unless the repository holds the engine in int8."""
    path = engine_of(repository) / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{path}: no engine that can be read ({error}); leave --repository out to have it built"
        ) from error
    if manifest.get("precision") != PRECISION:
        found = manifest.get("precision")
        raise BenchError(
            f"{path}: precision {found}, the benchmark measures {PRECISION}: name another repository"
        )
    return manifest


def built(cache: Path = CACHE) -> Path:
    """A repository with the engine as this source tree builds it; BenchError when the build fails."""
    repository = cache / f"{PRECISION}-{builder_digest()}"
    if not (engine_of(repository) / "manifest.json").is_file():
        for stale in cache.glob(f"{PRECISION}-*"):
            shutil.rmtree(stale)
        options = ["--precision", PRECISION, "--repository", str(repository)]
        command = [sys.executable, "-m", "build", MODEL, *options]
        if subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False).returncode:
            raise BenchError(f"the engine could not be built: python -m build {MODEL} says why above")
    return repository


def builder_digest() -> str:
    """Of the builder and the versions it runs on."""
    state = hashlib.sha256((ROOT / "requirements.lock").read_bytes())
    for path in sorted((ROOT / "build").rglob("*")):
        if path.suffix in {".py", ".toml"}:
            state.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return state.hexdigest()[:16]


def with_parameters(source: Path, target: Path, parameters: Mapping[str, str], model: str = MODEL) -> Path:
    """A second repository of the same artifacts, as links, with other parameters in the engine's config."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, copy_function=_link)
    config = target / f"{model}_engine" / "config.pbtxt"
    text = edited(config.read_text("utf-8"), parameters)
    config.unlink()  # a link: the other repository's file must stay as it is
    config.write_text(text, "utf-8")
    return target


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def edited(config: str, parameters: Mapping[str, str]) -> str:
    for name, value in parameters.items():
        pattern = rf'(key: "{name}" value {{ string_value: )"[^"]*"'
        config, count = re.subn(pattern, rf'\g<1>"{value}"', config)
        if count != 1:
            raise BenchError(f"{name}: {count} times in the engine's config.pbtxt, expected once")
    return config


def parameters_of(repository: Path, model: str = MODEL) -> dict[str, str]:
    """The engine's parameters, as its config.pbtxt has them."""
    config = (repository / f"{model}_engine" / "config.pbtxt").read_text("utf-8")
    return dict(re.findall(r'key: "(\w+)" value { string_value: "([^"]*)"', config))
