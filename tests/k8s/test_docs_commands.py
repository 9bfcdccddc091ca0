"""The operators' pages name values, files and commands that exist: each line is parsed, charts rendered."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.paths import ROOT

PAGES = ("build", "gpu", "install", "operate", "serve")
RENDERED = ("install", "upgrade", "template")
# Flags of helm's own that change no object.
WITHOUT_VALUE = (
    "--create-namespace",
    "--install",
    "--reset-then-reuse-values",
    "--atomic",
    "--wait",
    "--logs",
)
WITH_VALUE = ("--namespace", "--timeout")
OUTSIDE = {"aws", "cyclonedx-py", "docker", "kind", "pip", "skopeo"}
# Values that the commands before have written.
WRITTEN = {"live.yaml", "scaling.yaml"}


class Wrong(Exception):
    """A command names something that does not exist."""


def commands(text: str) -> Iterator[list[str]]:
    """Of the console blocks, split as a shell does; redirections are left out."""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            yield shlex.split(line.partition(" > ")[0], comments=True)


def documented() -> list[tuple[str, list[str]]]:
    return [(page, found) for page in PAGES for found in commands((ROOT / "docs" / f"{page}.md").read_text())]


def check(command: Sequence[str], tools: Path) -> None:
    """Raises Wrong."""
    program, rest = command[0], list(command[1:])
    if program == "helm":
        _helm(rest, tools)
    elif program == "kubectl":
        _kubectl(rest, tools)
    elif program == "make":
        _make(rest)
    elif program in {"python", "python3"}:
        _python(rest)
    elif program == "halimede":
        _python(["-m", "halimede", *rest])
    elif program not in OUTSIDE:
        raise Wrong(f"{program}: no program that this test knows")


def _helm(rest: list[str], tools: Path) -> None:
    known = _output([str(tools / "helm4"), rest[0], "--help"]) + _output(
        [str(tools / "helm3"), rest[0], "--help"]
    )
    for flag in re.findall(r"(?<!\S)--[a-z-]+", " ".join(rest)):
        if not re.search(rf"{flag}(?![\w-])", known):
            raise Wrong(f"helm {rest[0]} has no {flag}")
    if rest[0] in RENDERED:
        values = [
            part
            for part in _values_only(rest[1:])
            if part not in {"halimede", "halimede-canary", "k8s/chart"}
        ]
        done = _run(
            [str(tools / "helm4"), "template", "halimede", "k8s/chart", "--kube-version", "1.34.0", *values]
        )
        if done.returncode:
            raise Wrong(done.stderr)


def _values_only(rest: list[str]) -> Iterator[str]:
    parts = iter(rest)
    for part in parts:
        if part in WITH_VALUE:
            next(parts)
        elif part == "-f":
            file = next(parts)
            yield from [] if file in WRITTEN else ["-f", file]
        elif part not in WITHOUT_VALUE:
            yield part


def _kubectl(rest: list[str], tools: Path) -> None:
    if rest[0] == "argo":  # a plugin that is not here
        return
    for flag, path in pairwise(rest):
        if flag in {"-f", "-k"} and not (ROOT / path).exists():
            raise Wrong(f"kubectl {flag} {path}: no such file")
    verb = next(
        part for at, part in enumerate(rest) if not part.startswith("-") and rest[at - 1] != "--namespace"
    )
    help_text = _output([str(tools / "kubectl"), verb, "--help"]) + _output(
        [str(tools / "kubectl"), "options"]
    )
    subject = rest[rest.index(verb) + 1]
    if verb in {"rollout", "create"}:
        more = [subject, rest[rest.index(verb) + 2]] if (verb, subject) == ("create", "secret") else [subject]
        help_text += _output([str(tools / "kubectl"), verb, *more, "--help"])
    for flag in re.findall(r"(?<!\S)--[a-z-]+", " ".join(rest)):
        if f"{flag}=" not in help_text and f"{flag} " not in help_text:
            raise Wrong(f"kubectl {verb} has no {flag}")


def _make(rest: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for part in rest:
        name, is_variable, _ = part.partition("=")
        if not re.search(rf"^{name}\s*\?=" if is_variable else rf"^{name}:.*##", text, re.MULTILINE):
            raise Wrong(f"make has no {name}")


def _python(rest: list[str]) -> None:
    count = 2 if rest[0] == "-m" else 1
    program, given = [part.removeprefix("/opt/halimede/") for part in rest[:count]], rest[count:]
    has_commands = program[-1] in {"build", "halimede", "server/deliver"}
    command = given[:1] if has_commands and given[0].isidentifier() else []
    text = _output([sys.executable, *program, *command, "--help"])
    for flag in re.findall(r"(?<!\S)--[a-z0-9-]+", " ".join(given)):
        if not re.search(rf"{flag}(?![\w-])", text):
            raise Wrong(f"{program[-1]} has no {flag}")


def _output(command: Sequence[str]) -> str:
    done = _run(command)
    if done.returncode:
        raise Wrong(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(("page", "command"), documented(), ids=lambda value: " ".join(value)[:60])
def test_a_documented_command_names_what_exists(page: str, command: list[str], tools: Path) -> None:
    check(command, tools)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("helm install halimede k8s/chart --set autoscaling.mod=hpa", "mod"),
        ("helm install halimede k8s/chart --set models.source.kind=nfs", "kind"),
        ("helm install halimede k8s/chart -f k8s/chart/ci/nowhere.yaml", "nowhere"),
        ("helm upgrade halimede k8s/chart --roll-back", "roll-back"),
        ("kubectl apply -k k8s/manifests/nowhere", "no such file"),
        ("kubectl --namespace serving scale deployment/halimede --replica=3", "--replica"),
        ("make engine MODEL=smollm2", "engine"),
        ("make engines MODELL=smollm2", "MODELL"),
        ("python -m k8s.autoscaling --node 3", "--node"),
        ("python3 /opt/halimede/server/deliver s3://bucket /models --modell smollm2", "--modell"),
        ("python server/delivery seal models", "delivery"),
        ("python -m build recommend --tsk chat", "--tsk"),
        ("halimede genrate x", "genrate"),
        ("oc apply", "oc"),
    ],
)
def test_a_planted_mistake_is_found(line: str, problem: str, tools: Path) -> None:
    with pytest.raises(Wrong, match=problem):
        check(shlex.split(line), tools)


def test_every_page_has_commands() -> None:
    assert {page for page, _ in documented()} == set(PAGES)


def test_the_formula_for_replicas_computes_its_example() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "operate.md", "exec"), {})  # its assert is the test
