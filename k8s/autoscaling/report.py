"""The result of a rehearsal: a table for people, JSON for programs, a plot of the replicas over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from k8s.autoscaling.arrivals import SHAPES, rate
from k8s.autoscaling.calibration import Calibration
from k8s.autoscaling.rehearsal import Moment, Outcome

Outcomes = Mapping[str, Sequence[Outcome]]
COLUMNS: Final = (
    "scaled by",
    "good",
    "rejected",
    "cut off",
    "replica-h",
    "most",
    "changes",
    "TTFT p50",
    "p99",
)


def table(outcomes: Outcomes) -> str:
    """Markdown, one table for each load."""
    return "\n\n".join(_table(load, found) for load, found in outcomes.items())


def as_json(outcomes: Outcomes, calibration: Calibration, unit: Mapping[str, float]) -> dict[str, Any]:
    return {
        "calibration": asdict(calibration),
        "capacity_per_s": dict(unit),
        "outcomes": {load: [asdict(one) for one in found] for load, found in outcomes.items()},
    }


def read(path: Path) -> dict[str, list[Outcome]]:
    """Outcomes of a JSON file written before. Raises ValueError for another file."""
    try:
        found = json.loads(path.read_text())["outcomes"]
        return {load: [_outcome(one) for one in outcomes] for load, outcomes in found.items()}
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"{path}: no result of a rehearsal ({problem})") from problem


def _outcome(found: dict[str, Any]) -> Outcome:
    return Outcome(**found | {"moments": tuple(Moment(**one) for one in found["moments"])})


def plot(outcomes: Outcomes, path: Path) -> None:
    """A row for each load: its rate, and the replicas of each scaler."""
    import matplotlib as mpl  # noqa: PLC0415 - a second to import, and only the plot needs it

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, rows = pyplot.subplots(len(outcomes), 1, figsize=(8, 2.4 * len(outcomes)), squeeze=False)
    for (load, found), (axes,) in zip(outcomes.items(), rows, strict=True):
        seconds = range(0, int(SHAPES[load][-1][0]) + 1, 5)
        axes.fill_between(
            [at / 60 for at in seconds],
            [rate(SHAPES[load], at) for at in seconds],
            color="0.88",
            label="load",
        )
        for one in found:
            at = [moment.at_s / 60 for moment in one.moments]
            axes.step(at, [moment.wanted for moment in one.moments], where="post", lw=1.2, label=one.scaler)
        axes.set_title(load, loc="left", fontsize=9)
        axes.set_ylabel("replicas", fontsize=8)
        axes.tick_params(labelsize=7)
    rows[0][0].legend(fontsize=6, ncols=3, loc="upper left")
    rows[-1][0].set_xlabel("simulated minutes; load in capacities of one replica", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _table(load: str, found: Sequence[Outcome]) -> str:
    lines = [f"{load}, {found[0].requests} requests", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    return "\n".join(lines + [_row(one) for one in found])


def _row(one: Outcome) -> str:
    cells = (
        one.scaler,
        f"{one.good_share:.1%}",
        str(one.rejected),
        str(one.cut_off),
        f"{one.replica_hours:.2f}",
        str(one.most_replicas),
        str(one.changes),
        f"{one.ttft_p50_s:.2f} s",
        f"{one.ttft_p99_s:.1f} s",
    )
    return "| " + " | ".join(cells) + " |"
