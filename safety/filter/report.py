"""What a run did: counts by rule with masked samples (report.json, report.md), and a data card.

Nothing here depends on the time, on the machine or on how often the run was broken off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from safety.filter.settings import SAMPLES
from safety.filter.write import Part

VERSION = 1


@dataclass(slots=True)
class Sample:
    """A removed document: where it is, and its beginning, masked."""

    source: str
    place: str
    text: str


@dataclass(slots=True)
class Removed:
    """Documents that a rule removed, and the bytes of their texts."""

    documents: int = 0
    bytes: int = 0
    samples: list[Sample] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """Counts so far. Bytes are those of the texts in UTF-8, before anything is masked."""

    documents: int = 0
    bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    by_source: dict[str, list[int]] = field(default_factory=dict)
    removed: dict[str, Removed] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)

    def read(self, source: str, size: int) -> None:
        self.documents += 1
        self.bytes += size
        self.by_source.setdefault(source, [0, 0])[0] += 1

    def keep(self, source: str, size: int) -> None:
        self.kept += 1
        self.kept_bytes += size
        self.by_source[source][1] += 1

    def remove(self, rule: str, size: int) -> bool:
        """Is a sample of the rule still wanted?"""
        removed = self.removed.setdefault(rule, Removed())
        removed.documents += 1
        removed.bytes += size
        return len(removed.samples) < SAMPLES

    def mask(self, counts: Mapping[str, int]) -> None:
        for rule, count in counts.items():
            self.masked[rule] = self.masked.get(rule, 0) + count

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Tally:
        """From what `asdict` made of one."""
        removed = {
            rule: Removed(
                entry["documents"], entry["bytes"], [Sample(**sample) for sample in entry["samples"]]
            )
            for rule, entry in values["removed"].items()
        }
        return cls(**{**values, "removed": removed})


def as_json(run: Mapping[str, object], tally: Tally, parts: Sequence[Part]) -> bytes:
    removed = {rule: asdict(entry) for rule, entry in _in_order(tally, run)}
    content = {
        "version": VERSION,
        "run": run,
        "documents": tally.documents,
        "bytes": tally.bytes,
        "kept": tally.kept,
        "kept_bytes": tally.kept_bytes,
        "removed": removed,
        "masked": dict(sorted(tally.masked.items())),
        "by_source": {name: {"documents": n, "kept": k} for name, (n, k) in tally.by_source.items()},
        "parts": [asdict(part) for part in parts],
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _in_order(tally: Tally, run: Mapping[str, Any]) -> Iterator[tuple[str, Removed]]:
    """By the order in which the rules are asked; those without any removed document too."""
    for rule in ("broken", *run["settings"]["rules"]):
        yield rule, tally.removed.get(rule, Removed())


def as_markdown(run: Mapping[str, object], tally: Tally) -> bytes:
    lines = [
        "# Report of the filter",
        "",
        f"{tally.documents} documents ({tally.bytes} bytes of text) were read.",
        f"{tally.kept} ({tally.kept_bytes} bytes) are kept: {_share(tally.kept, tally.documents)}.",
        "",
        "| removed by | documents | of all | bytes |",
        "|---|---|---|---|",
    ]
    for rule, entry in _in_order(tally, run):
        share = _share(entry.documents, tally.documents)
        lines.append(f"| {rule} | {entry.documents} | {share} | {entry.bytes} |")
    if tally.masked:
        lines += ["", "| masked by | findings |", "|---|---|"]
        lines += [f"| {rule} | {count} |" for rule, count in sorted(tally.masked.items())]
    lines += ["", "## Samples", "", "The first documents that each rule removed; what rules find is masked."]
    for rule, entry in _in_order(tally, run):
        if entry.samples:
            lines += ["", f"### {rule}", ""]
            lines += [f"- {sample.source}, {sample.place}: {_code(sample.text)}" for sample in entry.samples]
    return "\n".join([*lines, ""]).encode()


def _code(text: str) -> str:
    """As code, so that nothing of a removed text is shown as a link or a picture."""
    fence = "`"
    while fence in text:
        fence += "`"
    return f"{fence} {text} {fence}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "none"


def as_data_card(run: Mapping[str, Any], tally: Tally, parts: Sequence[Part]) -> bytes:
    settings = run["settings"]
    lines = [
        "# Data card",
        "",
        f"- Licence: {settings['licence'] or 'not stated'}",
        f"- Documents: {tally.kept} of {tally.documents}",
        f"- Bytes of text: {tally.kept_bytes} of {tally.bytes}",
        "- Form: JSON lines in UTF-8 with `text`, and the `source` and `place` that it was read from",
        "",
        "## Sources",
        "",
        "| file | bytes | documents | kept | SHA-256 |",
        "|---|---|---|---|---|",
    ]
    for source in run["sources"]:
        documents, kept = tally.by_source.get(source["name"], [0, 0])
        lines.append(
            f"| {source['name']} | {source['bytes']} | {documents} | {kept} | `{source['sha256']}` |"
        )
    lines += ["", "## Rules", "", f"In this order: {', '.join(settings['rules'])}.", ""]
    lines += ["| parameter | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _flat(run["parameters"])]
    lines += ["", "## Versions", "", "| what | version |", "|---|---|"]
    lines += [f"| {name} | {version} |" for name, version in run["versions"].items()]
    lines += ["", "## Files", "", "| file | bytes | documents | SHA-256 |", "|---|---|---|---|"]
    lines += [f"| {part.name} | {part.bytes} | {part.documents} | `{part.sha256}` |" for part in parts]
    lines += [
        "",
        "## Limits",
        "",
        "Rules of patterns and lists miss what they do not describe, so personal data may remain. Languages,",
        "toxicity and near duplicates are estimates; report.json has the counts. Names are not",
        "looked for.",
        "",
    ]
    return "\n".join(lines).encode()


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
