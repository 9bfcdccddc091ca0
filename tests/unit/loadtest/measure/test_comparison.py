from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadtest.compare import main
from loadtest.measure.comparison import Change, Difference, Run, compare
from loadtest.measure.record import Record, encode_lines
from loadtest.measure.result import encode, summarise
from tests.unit.loadtest.play import facts, play
from tests.unit.loadtest.records import records


def run_of(found: list[Record], name: str = "chat") -> Run:
    return Run(summarise(found, facts(name)), found)


def stored(folder: Path, run: Run) -> str:
    folder.mkdir()
    (folder / "result.json").write_text(encode(run.result))
    (folder / "records.jsonl").write_text("".join(encode_lines(run.records)))
    return str(folder)


def by_name(found: tuple[Difference, ...]) -> dict[str, Difference]:
    return {difference.name: difference for difference in found}


def test_a_slower_server_is_distinct_from_noise() -> None:
    before, after = run_of(play(1, rate_per_s=4)), run_of(play(2, rate_per_s=4, step_s=0.045))
    found = by_name(compare(before, after))
    assert found["itl_p50_s"].change is Change.WORSE
    assert found["itl_p50_s"].ratio == pytest.approx(1.5, rel=0.05)
    assert found["itl_p50_s"].is_worse_than(1.1)
    assert not found["itl_p50_s"].is_worse_than(1.9)
    assert by_name(compare(after, before))["itl_p50_s"].change is Change.BETTER


def test_noise_is_seldom_called_a_change() -> None:
    names = ("ttft_p50_s", "itl_p50_s", "itl_p99_s", "tpot_p50_s", "requests_per_s")
    pairs = [(run_of(play(2 * n, rate_per_s=4)), run_of(play(2 * n + 1, rate_per_s=4))) for n in range(3)]
    changes = [by_name(compare(*pair))[name].change for pair in pairs for name in names]
    assert sum(change is not Change.NOISE for change in changes) <= 1


def test_a_run_compared_with_itself_is_unchanged() -> None:
    run = run_of(play(5))
    found = compare(run, run)
    assert {difference.ratio for difference in found} == {1.0}
    assert {difference.change for difference in found} == {Change.NOISE}


@settings(max_examples=10, deadline=None)
@given(a=st.lists(records(), max_size=4), b=st.lists(records(), max_size=4))
@example(a=play(0), b=play(1))
def test_intervals_hold_together_whatever_ran(a: list[Record], b: list[Record]) -> None:
    for difference in compare(run_of(a), run_of(b)):
        if difference.low is not None:
            assert difference.high is not None
            assert difference.low <= difference.high


class TestCommand:
    def test_equal_runs_pass(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = stored(tmp_path / "a", run_of(play(1)))
        assert main([run, run, "--fail-above", "1.1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80

    def test_a_worse_latency_fails(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        a, b = run_of(play(1)), run_of(play(2, step_s=0.06))
        paths = [stored(tmp_path / "a", a), stored(tmp_path / "b", b)]
        assert main([*paths, "--fail-above", "1.1", "--on", "itl_p50_s"]) == 3
        assert "itl_p50_s got worse by more than 1.1 times" in capsys.readouterr().err
        assert main([*paths, "--fail-above", "1.1", "--on", "ttft_p50_s"]) == 0
        assert main(paths) == 0

    def test_the_page_is_written(self, tmp_path: Path) -> None:
        run = stored(tmp_path / "a", run_of(play(1)))
        assert main([run, run, "--html", str(tmp_path / "out.html")]) == 0
        assert (tmp_path / "out.html").read_text().count("<svg") == 5

    def test_other_profiles_are_warned_of(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = facts().profile | {"slo": {}}  # type: ignore[operator]
        found = play(1)
        changed = Run(summarise(found, replace(facts(), profile=other)), found)
        paths = [stored(tmp_path / "a", run_of(found)), stored(tmp_path / "b", changed)]
        assert main(paths) == 0
        assert "the profiles differ" in capsys.readouterr().out

    def test_what_is_no_run_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = stored(tmp_path / "a", run_of(play(1)))
        assert main([run, str(tmp_path / "b")]) == 1
        assert "result.json: No such file" in capsys.readouterr().err
        (tmp_path / "a" / "result.json").write_text('{"version": 99}')
        assert main([run, run]) == 1
        assert "version is 99, this program reads 2" in capsys.readouterr().err
        (tmp_path / "a" / "result.json").write_text('{"version": 2}')
        assert main([run, run]) == 1
        assert "must be an object of version, profile" in capsys.readouterr().err

    @pytest.mark.parametrize("factor", ["0.9", "x", "nan", "inf"])
    def test_a_bad_factor_is_refused(self, factor: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["a", "b", "--fail-above", factor])
        assert caught.value.code == 2
        assert "must be a number of at least 1" in capsys.readouterr().err
