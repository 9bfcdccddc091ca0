"""Which models of a repository can be served.

A model NAME that `build` made is an ensemble whose artifacts are in NAME_engine/VERSION; any other
folder with a numbered version is served unchanged.
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
    """The task of a model's newest version; None for a model that `build` did not make."""
    manifests = _manifests(repository, name)
    if not manifests:
        return None
    newest = max(manifests, key=lambda path: int(path.parent.name))
    return str(json.loads(newest.read_text("utf-8")).get("task"))


def _manifests(repository: Path, name: str) -> list[Path]:
    found = repository.glob(f"{name}{ENGINE}/{VERSION}/{MANIFEST}")
    return [path for path in found if path.parent.name.isdecimal()]


def models_to_serve(repository: Path, names: Sequence[str]) -> list[str]:
    """`names`, or all built models if empty. Raises Refusal for a model that does not exist or is not
    built.
    """
    if not repository.is_dir():
        raise Refusal(f"{repository}: no such model repository")
    built = built_models(repository)
    for name in names:
        if not (repository / name / "config.pbtxt").is_file():
            raise Refusal(f"{name}: no such model in {repository}; built there: {', '.join(built) or 'none'}")
        has_engine = (repository / f"{name}{ENGINE}").is_dir()
        if not (name in built if has_engine else any((repository / name).glob(VERSION))):
            raise Refusal(f"{name} is not built: make engines MODEL={name}")
    models = list(dict.fromkeys(names)) or built
    if not models:
        raise Refusal(f"no model in {repository} is built: make engines MODEL=smollm2")
    return models
