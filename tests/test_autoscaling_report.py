"""Tables and pooled results of rehearsals."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.autoscaling.rehearsal import Moment, Outcome
from k8s.autoscaling.report import overview, plot, pooled, read_all, table

ONE = Outcome(
    scaler="chart, HPA",
    requests=100,
    good=90,
    rejected=4,
    cut_off=1,
    replica_hours=2.0,
    most_replicas=5,
    changes=6,
    ttft_p50_s=0.25,
    ttft_p99_s=1.5,
    moments=(Moment(7.5, 2, 2, 0), Moment(22.5, 3, 2, 9)),
)
CPU = replace(ONE, scaler="cpu:80", good=50, rejected=20)
counts = st.integers(0, 1000)


def written(folder: Path, name: str, outcomes: dict[str, list[Outcome]]) -> Path:
    path = folder / name
    found = {load: [asdict(one) for one in each] for load, each in outcomes.items()}
    path.write_text(json.dumps({"outcomes": found}))
    return path


@given(st.lists(st.tuples(st.integers(1, 1000), counts, counts), min_size=1, max_size=5))
def test_pooled_requests_are_added_up(found: list[tuple[int, int, int]]) -> None:
    outcomes = [replace(ONE, requests=all_, good=min(good, all_), rejected=bad) for all_, good, bad in found]
    one = pooled(outcomes)
    assert one.requests == sum(all_ for all_, _, _ in found)
    assert one.rejected == sum(bad for _, _, bad in found)
    shares = [outcome.good_share for outcome in outcomes]
    assert min(shares) - 1e-9 <= one.good_share <= max(shares) + 1e-9
    assert one.replica_hours == pytest.approx(2.0)


def test_seeds_are_pooled_by_load_and_scaler(tmp_path: Path) -> None:
    more = replace(ONE, good=100, rejected=0, replica_hours=3.0, most_replicas=8)
    paths = [
        written(tmp_path, "1.json", {"burst": [ONE, CPU], "ramp": [ONE, CPU]}),
        written(tmp_path, "2.json", {"burst": [more, CPU]}),
    ]
    found = read_all(paths, [])
    assert [one.scaler for one in found["burst"]] == ["chart, HPA", "cpu:80"]
    both = found["burst"][0]
    assert (both.requests, both.good, both.rejected, both.most_replicas) == (200, 190, 4, 8)
    assert both.replica_hours == 2.5
    assert found["ramp"] == [ONE, CPU]
    assert [one.scaler for one in read_all(paths, ["HPA"])["burst"]] == ["chart, HPA"]


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="no result of a rehearsal"):
        read_all([path], [])


def test_the_overview_has_every_load_and_their_mean() -> None:
    better = replace(ONE, good=100, rejected=0, replica_hours=3.0)
    assert "| chart, HPA | 90.0%, 4, 2.00 | 100.0%, 0, 3.00 | 95.0%, 4, 2.50 |" in overview(
        {"burst": [ONE], "ramp": [better]}
    )


def test_a_table_for_each_load() -> None:
    text = table({"burst": [ONE, CPU]})
    assert text.startswith("burst, 100 requests")
    assert "| cpu:80 | 50.0% | 20 | 1 | 2.00 | 5 | 6 | 0.25 s | 1.5 s |" in text
    assert "all" not in text


def test_a_plot_is_a_picture(tmp_path: Path) -> None:
    plot({"burst": [ONE, CPU], "ramp": [ONE]}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
