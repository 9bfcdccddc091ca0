from __future__ import annotations

import gzip
import json
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from safety.intervals import wilson
from safety.rules.corpus import Planted
from safety.rules.measure import measure, rules_command
from safety.rules.rule import Finding

app = typer.Typer()
app.command()(rules_command)


class Letters:
    """Finds each x."""

    name, kind, longest = "letters", "words", 1

    def find(self, text: str) -> Iterator[Finding]:
        return (Finding(self.name, place, place + 1) for place, letter in enumerate(text) if letter == "x")


@pytest.mark.parametrize(("hits", "total"), [(0, 5), (5, 5), (3, 7), (990, 1000)])
def test_wilson_ends_where_the_share_is_as_far_as_chance_allows(hits: int, total: int) -> None:
    """The score test defines the interval: from its ends the share is 1.96 of their deviations away."""
    low, high = wilson(hits, total)
    normal = statistics.NormalDist().inv_cdf(0.975)
    for end in (low, high):
        deviation = math.sqrt(max(end * (1 - end), 0) / total)
        assert abs(hits / total - end) == pytest.approx(normal * deviation, abs=1e-6)
    assert low <= hits / total <= high
    assert high > low


def test_what_is_counted() -> None:
    texts = [
        Planted("letters", "a x", 2, 3),
        Planted("letters", "x xx", 2, 4),
        Planted("other", "x bx", 2, 4),
        Planted("", "x", 0, 1),
    ]
    one = measure([Letters()], texts)["letters"]
    assert (one.planted, one.found, one.right, one.false, one.other) == (2, 1, 3, 4, 1)


def test_the_command_counts_in_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "page.gz").write_bytes(gzip.compress(b"one\nwrite to a@b.org"))
    (tmp_path / "data.bin").write_bytes(b"c@d.org")
    result = CliRunner().invoke(
        app, [str(tmp_path), "--samples", "1", "--show", "5", "--json", str(tmp_path / "out.json")]
    )
    assert result.exit_code == 0, result.output
    assert f"email {tmp_path / 'page.gz'}:2: 'a@b.org'" in result.output
    document = json.loads((tmp_path / "out.json").read_text())
    assert [one["elsewhere"] for one in document["rules"] if one["rule"] == "email"] == [1]
    assert document["characters"] == 20


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rstr", None)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "needs rstr: pip install" in result.output
