"""Dockerfiles as the tests read them: instructions by stage, and COPY replayed into plain folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tests.paths import ROOT


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [rest for found, rest in self.instructions if found == keyword]

    def one(self, keyword: str) -> str:
        (found,) = self.all(keyword)
        return found

    def program(self, keyword: str) -> list[str]:
        """The exec form of ENTRYPOINT or HEALTHCHECK."""
        found: list[str] = json.loads(self.one(keyword)[self.one(keyword).index("[") :])
        return found

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in rest.split())


@dataclass(frozen=True, slots=True)
class Dockerfile:
    path: Path
    arguments: Mapping[str, str]  # of ARG, those inside a stage too
    stages: list[Stage]

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    def value(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda found: self.arguments[found[1]], text)

    def is_sent(self, source: str) -> bool:
        """Whether .dockerignore lets the file or folder through: the last line that matches decides."""
        own = self.path.with_name(f"{self.path.name}.dockerignore")
        lines = (own if own.is_file() else ROOT / ".dockerignore").read_text().splitlines()
        sent = True
        for line in (line for line in lines if line and not line.startswith("#")):
            pattern = line.removeprefix("!").removeprefix("**/")
            if any(fnmatch(part, pattern) for part in _above(source)):
                sent = line.startswith("!")
        return sent

    def copies(self, stage: Stage) -> Iterator[tuple[str | None, list[str], str]]:
        """Of each COPY: the stage it copies from, its sources and its target."""
        for rest in stage.all("COPY"):
            words = self.value(rest).split()
            origin = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
            yield origin, words[:-1], words[-1]

    def replay(self, folder: Path) -> Path:
        """What COPY alone makes of the last stage; what a RUN made is not there."""
        for stage in self.stages:
            for origin, sources, target in self.copies(stage):
                for source in sources:
                    found = folder / origin / source.lstrip("/") if origin else ROOT / source
                    _copy(found, _place(folder / stage.name, source, target))
        return folder / self.last.name


def read(path: str) -> Dockerfile:
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (ROOT / path).read_text(), flags=re.MULTILINE))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "ARG":
            arguments |= [tuple(rest.split("=", 1))]  # type: ignore[list-item]
        elif keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name or "last", base))
        else:
            stages[-1].instructions.append((keyword, rest.strip()))
    return Dockerfile(ROOT / path, arguments, stages)


def _above(source: str) -> list[str]:
    parts = Path(source).parts
    return ["/".join(parts[: at + 1]) for at in range(len(parts))] + list(parts)


def _place(root: Path, source: str, target: str) -> Path:
    at = root / target.lstrip("/")
    return at / Path(source).name if target.endswith("/") else at


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    elif source.is_file():
        shutil.copy2(source, target)
