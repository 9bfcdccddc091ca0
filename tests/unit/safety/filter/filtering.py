"""A judge with two plain rules, and runs in this process."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety.filter.judge import Judge, Tools
from safety.filter.overlap import Evaluation
from safety.filter.pipeline import run, sources_of
from safety.filter.read import Format
from safety.filter.report import Tally
from safety.filter.settings import Settings
from safety.filter.workers import serial
from safety.filter.write import Disk
from safety.rules.rule import Finding


class Pattern:
    def __init__(self, name: str, kind: str, pattern: str) -> None:
        self.name, self.kind, self.longest = name, kind, 100
        self._pattern = re.compile(pattern)

    def find(self, text: str) -> Iterator[Finding]:
        for match in self._pattern.finditer(text):
            yield Finding(self.name, match.start(), match.end())


GUARDS = (
    Pattern("email", "personal", r"[a-z]{1,20}@[a-z]{1,20}\.org"),
    Pattern("key", "secret", r"KEY-[0-9]{8}"),
)


def mask(text: str, findings: Sequence[Finding]) -> str:
    for finding in sorted(findings, key=lambda each: -each.start):
        text = f"{text[: finding.start]}<{finding.rule}>{text[finding.end :]}"
    return text


def scores(texts: Sequence[str]) -> NDArray[np.float64]:
    return np.array([0.9 if "horrible" in text else 0.1 for text in texts])


def judge(settings: Settings, evaluation: Sequence[str] = ()) -> Judge:
    def language(text: str) -> str:
        return "de" if " und " in text else "en"

    return Judge(settings, Tools(GUARDS, mask, language, scores, Evaluation(evaluation)))


def filtered(settings: Settings, inputs: Sequence[Path], out: Path, disk: Disk | None = None) -> Tally:
    made = judge(settings)
    sources = sources_of(inputs, out, Format.AUTO)
    return run(settings, sources, out, made, serial(made), disk=disk)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, by its name."""
    return {f"{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
