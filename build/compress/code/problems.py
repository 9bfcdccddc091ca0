"""The problems, and what of a model's answer is its function."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from build.compress.code.sandbox import passes

_FILE = Path(__file__).with_name("problems.toml")
# Tokens of an answer; the longest solution known takes about 60.
MAX_TOKENS = 128


@dataclass(frozen=True)
class Problem:
    """`prompt` ends with the function's docstring; each of `checks` is an expression that must be true."""

    name: str
    prompt: str
    checks: tuple[str, ...]


def problems() -> list[Problem]:
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))["problem"]
    return [Problem(t["name"], t["prompt"].lstrip("\n"), tuple(t["checks"])) for t in tables]


def solved(asked: Sequence[Problem], answers: Sequence[str]) -> list[str]:
    """The names of the problems whose answer, a continuation of the prompt, makes every check true."""
    pairs = zip(asked, answers, strict=True)
    return [
        problem.name for problem, answer in pairs if passes(problem.prompt + body(answer), problem.checks)
    ]


def body(answer: str) -> str:
    """The lines of the function alone: up to the first one that is not indented."""
    kept: list[str] = []
    for line in answer.split("\n"):
        if line.strip() and not line.startswith((" ", "\t")):
            break
        kept.append(line)
    return "\n".join(kept)
