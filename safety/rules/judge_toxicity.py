"""`python -m safety classifier`: what share of toxic and of other texts the classifier flags."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from safety.intervals import wilson
from safety.rules.toxicity import Toxicity

THRESHOLDS = (0.5, 0.8)


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `n`, with the interval of 95 % of their share."""

    measure: str
    source: str
    threshold: float
    hits: int
    n: int
    low: float
    high: float


def share(measure: str, source: str, threshold: float, hits: int, n: int) -> Share:
    return Share(measure, source, threshold, hits, n, *wilson(hits, n))


def lines(text: str) -> list[str]:
    """Those that are not blank, each once, in the order of the text."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def judge(
    toxic: Mapping[str, NDArray[np.float64]],
    neutral: Mapping[str, NDArray[np.float64]],
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[Share]:
    """Scores by the name of their source to recall, false positive rate and precision.

    Each source is weighted by its lines, so precision is that of this mixture alone.
    """
    return [row for threshold in thresholds for row in _at(threshold, toxic, neutral)]


def _at(
    threshold: float, toxic: Mapping[str, NDArray[np.float64]], neutral: Mapping[str, NDArray[np.float64]]
) -> list[Share]:
    rows = []
    flagged = []
    for measure, sources in (("recall", toxic), ("false positives", neutral)):
        counts = {name: (int((scores >= threshold).sum()), len(scores)) for name, scores in sources.items()}
        rows += [share(measure, name, threshold, *count) for name, count in counts.items()]
        hits, n = (sum(column) for column in zip((0, 0), *counts.values(), strict=True))
        rows.append(share(measure, "all", threshold, hits, n))
        flagged.append(hits)
    rows.append(share("precision", "all", threshold, flagged[0], sum(flagged)))
    return rows


def table(rows: Iterable[Share]) -> str:
    """A line a share, in Markdown, in per cent."""
    head = [
        "| measure | source | threshold | flagged | of | share % | 95 % |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    return "\n".join(head + [_line(row) for row in rows])


def _line(row: Share) -> str:
    value = f"{100 * row.hits / row.n:.1f}" if row.n else "-"
    interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
    return f"| {row.measure} | {row.source} | {row.threshold} | {row.hits} | {row.n} | {value} | {interval} |"


def _scores(model: Toxicity, paths: Iterable[Path]) -> dict[str, NDArray[np.float64]]:
    return {path.name: model.scores(lines(path.read_text("utf-8", errors="replace"))) for path in paths}


def classifier_command(
    toxic: Annotated[list[Path], typer.Option(exists=True, dir_okay=False, help="A toxic text a line.")],
    neutral: Annotated[list[Path], typer.Option(exists=True, dir_okay=False, help="A neutral text a line.")],
    threshold: Annotated[
        list[float], typer.Option(min=0, max=1, help="Scores from here on count as toxic.")
    ] = list(THRESHOLDS),  # noqa: B006 typer reads it and copies it
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the counts there.")] = None,
) -> None:
    """Measure precision and recall of the toxicity classifier on labelled lines."""
    model = Toxicity.load()
    rows = judge(_scores(model, toxic), _scores(model, neutral), threshold)
    typer.echo(table(rows))
    if json_file:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
