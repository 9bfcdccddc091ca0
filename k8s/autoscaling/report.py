"""The result of a rehearsal: a table for people, JSON for programs, a plot of the replicas over time."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
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
    """Markdown, one table for each load, and one of all where there are several."""
    tables = [_table(load, found) for load, found in outcomes.items()]
    return "\n\n".join([*tables, *([overview(outcomes)] if len(outcomes) > 1 else [])])


def overview(outcomes: Outcomes) -> str:
    """A row for each scaler: good, rejected, replica-hours of each load, and on average."""
    lines = [
        "good, rejected, replica-hours",
        "",
        "| scaled by | " + " | ".join(outcomes) + " | all |",
        "|---|" + "---:|" * (len(outcomes) + 1),
    ]
    for of_one in zip(*outcomes.values(), strict=True):
        share = statistics.fmean(one.good_share for one in of_one)
        hours = statistics.fmean(one.replica_hours for one in of_one)
        rejected = sum(one.rejected for one in of_one)
        cells = [_cell(one.good_share, one.rejected, one.replica_hours) for one in of_one]
        lines.append(f"| {of_one[0].scaler} | {' | '.join(cells)} | {_cell(share, rejected, hours)} |")
    return "\n".join(lines)


def _cell(share: float, rejected: int, hours: float) -> str:
    return f"{share:.1%}, {rejected}, {hours:.2f}"


def pooled(found: Sequence[Outcome]) -> Outcome:
    """Rehearsals of one scaler under one load with other seeds: requests added up, the rest on average."""

    def mean(figure: Callable[[Outcome], float]) -> float:
        return statistics.fmean(map(figure, found))

    return replace(
        found[0],
        requests=sum(one.requests for one in found),
        good=sum(one.good for one in found),
        rejected=sum(one.rejected for one in found),
        cut_off=sum(one.cut_off for one in found),
        replica_hours=mean(lambda one: one.replica_hours),
        most_replicas=max(one.most_replicas for one in found),
        changes=round(mean(lambda one: one.changes)),
        ttft_p50_s=mean(lambda one: one.ttft_p50_s),
        ttft_p99_s=mean(lambda one: one.ttft_p99_s),
    )


def as_json(outcomes: Outcomes, calibration: Calibration, unit: Mapping[str, float]) -> dict[str, Any]:
    return {
        "calibration": asdict(calibration),
        "capacity_per_s": dict(unit),
        "outcomes": {load: [asdict(one) for one in found] for load, found in outcomes.items()},
    }


def read_all(paths: Sequence[Path], only: Sequence[str]) -> dict[str, list[Outcome]]:
    """Pooled by load and scaler; `only` those whose name has one of these. Raises ValueError."""
    found: dict[str, dict[str, list[Outcome]]] = {}
    for path in paths:
        for load, outcomes in read(path).items():
            for one in outcomes:
                if not only or any(part in one.scaler for part in only):
                    found.setdefault(load, {}).setdefault(one.scaler, []).append(one)
    return {load: [pooled(same) for same in by_scaler.values()] for load, by_scaler in found.items()}


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
