"""A soak test's watch, its filling of the slots, and its command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest import artifacts
from loadtest.errors import BenchError
from loadtest.load import main
from loadtest.users.watch import fill, sizes, watching

SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


@contextmanager
def asleep() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has come up: between fork and exec it has no memory of its own."""
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process


def test_a_watch_sees_the_memory_of_a_process() -> None:
    with asleep() as process:
        with watching(process.pid, 0.02) as watch:
            while len(watch.looks) < 3:
                time.sleep(0.01)
        process.kill()
    assert all(look.rss >= look.pss > 0 and look.processes == 1 for look in watch.looks)
    assert [look.at_s for look in watch.looks] == sorted({look.at_s for look in watch.looks})
    assert not watch.ended


def test_a_watch_says_that_the_process_ended_and_keeps_what_it_saw() -> None:
    ends: list[None] = []
    with asleep() as process, watching(process.pid, 0.02, lambda: ends.append(None)) as watch:
        while not watch.looks:
            time.sleep(0.01)
        process.kill()
        process.wait()
        while not watch.ended:
            time.sleep(0.01)
    assert watch.looks
    assert watch.looks[-1].processes == 1
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rate", "1", "--pid", "1"], "--pid 1: needs --url"),
        (["--rate", "1", "--url", "127.0.0.1:1"], "needs --pid"),
        (["--rate", "1", "--url", "127.0.0.1:1", "--pid", "999999999"], "no such process"),
        (["--sweep", "absent.json"], "--sweep absent.json"),
    ],
)
def test_a_wrong_command_is_refused(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--minutes", "1", *arguments, "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_results_are_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").touch()
    assert main(["--minutes", "1", "--rate", "1", "--out", str(tmp_path)]) == 2
    assert "has a result.json already" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "many"])
def test_a_rate_must_be_above_zero(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--minutes", "1", "--rate", rate])
    assert ended.value.code == 2
    assert "must be a number above 0" in capsys.readouterr().err


def test_the_sizes_are_those_of_the_engines_config() -> None:
    assert sizes(artifacts.parameters_of(artifacts.ROOT / "model_repository", "smollm2")) == (16, 2048)


@pytest.mark.parametrize("parameters", [{}, {"slots": "many", "max_context": "2048"}, {"slots": "4"}])
def test_a_config_without_them_is_an_error_that_names_them(parameters: dict[str, str]) -> None:
    with pytest.raises(BenchError, match="slots or max_context"):
        sizes(parameters)


def test_slots_that_cannot_be_filled_are_reported_and_end_nothing(tmp_path: Path) -> None:
    shutil.copytree(
        artifacts.ROOT / "model_repository" / "smollm2_engine",
        tmp_path / "smollm2_engine",
        ignore=shutil.ignore_patterns("1"),
    )
    config = tmp_path / "smollm2_engine" / "config.pbtxt"
    config.write_text(config.read_text().replace('"slots"', '"rows"'))
    said = fill("grpc://127.0.0.1:1", tmp_path, "smollm2")
    assert said.startswith("the slots are not filled beforehand")
    assert "KeyError('slots')" in said
