"""Which models of a repository can be served.

A model NAME that `build` made is an ensemble whose artifacts are in NAME_engine/VERSION; any other
folder with a numbered version is served as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from launcher import Refusal

ENGINE = "_engine"
VERSION = "[0-9]*"
MANIFEST = "manifest.json"


def built_models(repository: Path) -> list[str]:
    return sorted({path.parts[-3].removesuffix(ENGINE) for path in _manifests(repository, "*")})


def task_of(repository: Path, name: str) -> str | None:
    """What the newest version of a model is for; None for one that `build` did not make."""
    manifests = _manifests(repository, name)
    if not manifests:
        return None
    newest = max(manifests, key=lambda path: int(path.parent.name))
    return str(json.loads(newest.read_text("utf-8")).get("task"))


def _manifests(repository: Path, name: str) -> list[Path]:
    found = repository.glob(f"{name}{ENGINE}/{VERSION}/{MANIFEST}")
    return [path for path in found if path.parent.name.isdecimal()]


def models_to_serve(repository: Path, names: Sequence[str]) -> list[str]:
    """`names`, or without any all that are built. Raises Refusal for one that is not there or not built."""
    if not repository.is_dir():
        raise Refusal(f"{repository}: no such model repository")
    for name in names:
        _check(repository, name)
    models = list(dict.fromkeys(names)) or built_models(repository)
    if not models:
        raise Refusal(f"no model in {repository} is built: make engines MODEL=smollm2")
    return models


def _check(repository: Path, name: str) -> None:
    if not (repository / name / "config.pbtxt").is_file():
        known = ", ".join(built_models(repository)) or "none"
        raise Refusal(f"{name}: no such model in {repository}; built there: {known}")
    if (repository / f"{name}{ENGINE}").is_dir():
        ready = name in built_models(repository)
    else:
        ready = any((repository / name).glob(VERSION))
    if not ready:
        raise Refusal(f"{name} is not built: make engines MODEL={name}")
