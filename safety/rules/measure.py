"""`python -m safety rules`: how many planted data each rule finds, and what it finds in ordinary texts."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from safety.intervals import wilson
from safety.rules.catalogue import rules
from safety.rules.corpus import MissingPackage, Planted, planted
from safety.rules.rule import Rule


@dataclass(slots=True)
class Measured:
    """`found` of `planted` data were covered. `false` findings touch nothing planted for the rule, in the
    texts of all rules and in decoys; `other` of them touch what was planted for another rule. `elsewhere`
    counts the findings in the files, right or not.
    """

    rule: str
    planted: int = 0
    found: int = 0
    right: int = 0
    false: int = 0
    other: int = 0
    elsewhere: int = 0


@dataclass(frozen=True, slots=True)
class Spotted:
    """A finding in a file, for judging by hand."""

    rule: str
    file: str
    line: int
    text: str


def measure(each: Sequence[Rule], texts: Iterable[Planted]) -> dict[str, Measured]:
    """By the name of the rule. A datum counts as found if findings cover its characters, but for what a rule
    leaves in sight: the name before an assigned value, the user and the host around a password.
    """
    results = {rule.name: Measured(rule.name) for rule in each}
    for text in texts:
        for rule in each:
            result = results[rule.name]
            spans = [(finding.start, finding.end) for finding in rule.find(text.text)]
            inside = [span for span in spans if text.rule == rule.name and _touch(span, text)]
            result.right += len(inside)
            result.false += len(spans) - len(inside)
            if text.rule not in {rule.name, ""}:
                result.other += sum(_touch(span, text) for span in spans)
            if text.rule == rule.name:
                result.planted += 1
                result.found += _covers(inside, text)
    return results


def _touch(span: tuple[int, int], text: Planted) -> bool:
    return span[0] < text.end and span[1] > text.start


_PARTS = frozenset({"assigned_secret", "slack_webhook", "unquoted_secret", "url_password"})


def _covers(spans: list[tuple[int, int]], text: Planted) -> bool:
    if text.rule in _PARTS:
        return bool(spans)
    return any(start <= text.start and end >= text.end for start, end in spans)


def spot(each: Sequence[Rule], file: str, text: str) -> Iterator[Spotted]:
    """What the rules find in a text, with its line."""
    for rule in each:
        for finding in rule.find(text):
            line = text.count("\n", 0, finding.start) + 1
            yield Spotted(rule.name, file, line, text[finding.start : finding.end])


def table(results: Iterable[Measured], characters: int) -> str:
    """A line a rule: shares with intervals in per cent, and the findings in the files, also by the million
    characters.
    """
    head = ("rule", "planted", "found", "recall %", "false", "other", "precision %", "in files", "a million")
    rows = [
        (
            one.rule,
            str(one.planted),
            str(one.found),
            _share(one.found, one.planted),
            str(one.false),
            str(one.other),
            _share(one.right, one.right + one.false),
            str(one.elsewhere),
            f"{one.elsewhere / max(characters, 1) * 1e6:.2f}",
        )
        for one in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in [head, *rows]]
    return "\n".join([*lines, f"characters in files: {characters}"])


def _share(hits: int, total: int) -> str:
    low, high = wilson(hits, total)
    return f"{100 * hits / total:.1f} [{100 * low:.1f}, {100 * high:.1f}]" if total else "-"


def _paths(files: Iterable[Path]) -> Iterator[Path]:
    for path in files:
        if not path.is_dir():
            yield path
            continue
        yield from sorted(
            one for one in path.rglob("*") if one.suffix in {".py", ".txt", ".md", ".gz"} and one.is_file()
        )


def _read(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8", errors="replace")


def rules_command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, help="Ordinary texts, also .gz, and folders of .py, .txt, .md and .gz."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Planted data of each rule, and decoys.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the planted data.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the counts there.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Print that many findings in files of each rule.")] = 0,
) -> None:
    """Measure precision and recall of the built-in rules."""
    each = rules()
    try:
        results = measure(each, planted(samples, seed))
    except MissingPackage as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    characters = 0
    for path in _paths(files or []):
        text = _read(path)
        characters += len(text)
        for one in spot(each, str(path), text):
            results[one.rule].elsewhere += 1
            if results[one.rule].elsewhere <= show:
                sys.stdout.write(f"{one.rule} {one.file}:{one.line}: {one.text!r}\n")
    typer.echo(table(results.values(), characters))
    if json_file:
        document = {
            "seed": seed,
            "characters": characters,
            "rules": [asdict(one) for one in results.values()],
        }
        json_file.write_text(json.dumps(document, indent=1) + "\n")
