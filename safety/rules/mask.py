"""Texts that can be shown: each finding is replaced by the names of the rules that made it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from safety.rules.rule import Finding


def mask(text: str, findings: Sequence[Finding]) -> str:
    """The text with `<email>` where that rule found something; of what was found nothing stays.

    Findings that overlap become one, `<email|phone>`, with each name once in the order of the findings.
    Mask a whole text and cut a sample out of it afterwards: a text cut first may hold half a finding.
    """
    parts, done = [], 0
    for start, end, names in _joined(findings):
        parts += [text[done:start], f"<{'|'.join(names)}>"]
        done = end
    return "".join([*parts, text[done:]])


def _joined(findings: Sequence[Finding]) -> Iterator[tuple[int, int, list[str]]]:
    start, end, names = 0, 0, list[str]()
    for finding in sorted(findings, key=lambda one: (one.start, one.end)):
        if names and finding.start < end:
            end = max(end, finding.end)
            names += [finding.rule] if finding.rule not in names else []
            continue
        if names:
            yield start, end, names
        start, end, names = finding.start, finding.end, [finding.rule]
    if names:
        yield start, end, names
