from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from safety.filter.command import filter_command
from safety.filter.write import UNFINISHED
from tests.paths import ROOT
from tests.unit.safety.filter.filtering import contents
from tests.unit.safety.filter.test_quality import PROSE

PROGRAM = "import typer; from safety.filter.command import filter_command; typer.run(filter_command)"
app = typer.Typer()
app.command()(filter_command)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """In a group of its own, as a terminal starts it."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )


def until(condition: Callable[[], bool]) -> None:
    """The limit only bounds a failure."""
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def ended(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Enough that a run does not end before it is stopped: its workers only begin."""
    source = random.Random(2)
    words = PROSE.split()
    texts = [" ".join(source.choices(words, k=40)) for _ in range(4000)]
    texts += [f"{text} Write to somebody@example.org." for text in texts[:20]]
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(source.sample(texts, len(texts))))
    return path


def test_a_run_that_is_stopped_by_ctrl_c_goes_on_with_the_same_command(tmp_path: Path, corpus: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    run = started(corpus, broken, "--without", "toxicity")
    until((broken / UNFINISHED / "state.json").exists)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "stopped; the same command goes on" in errors
    assert "Traceback" not in errors
    until(lambda: ended(run.pid))
    for out, workers in ((broken, "2"), (whole, "1")):
        run = started(corpus, out, "--workers", workers, "--without", "toxicity")
        run.communicate(timeout=120)
        assert run.returncode == 0
    assert contents(broken) == contents(whole)
    assert json.loads((whole / "report.json").read_text())["kept"] > 0


def test_workers_end_when_the_run_is_killed(tmp_path: Path, corpus: Path) -> None:
    run = started(corpus, tmp_path / "out")
    until((tmp_path / "out" / UNFINISHED / "state.json").exists)
    run.kill()
    run.communicate(timeout=60)
    until(lambda: ended(run.pid))


def test_bad_input_ends_with_1_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"good\n\nbad \xff\n")
    result = call(path, tmp_path / "out", "--only", "short", "--workers", "1")
    assert result.exit_code == 1
    assert "text.txt: line 3: byte 0xff at byte 5" in result.stderr
    result = call(path, tmp_path / "other", "--only", "short", "--workers", "1", "--broken", "remove")
    assert result.exit_code == 0
    assert "broken" in result.stdout


def test_a_file_of_rules_that_is_wrong_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "text.txt").touch()
    (tmp_path / "mine.toml").write_text("[[rule]\n")
    result = call(tmp_path / "text.txt", tmp_path / "out", "--rules", tmp_path / "mine.toml")
    assert result.exit_code == 1
    assert "mine.toml" in result.stderr
    (tmp_path / "mine.toml").write_text('[[rule]]\nname = "short"\nkind = "words"\nwords = ["cart"]\n')
    result = call(tmp_path / "text.txt", tmp_path / "out", "--rules", tmp_path / "mine.toml")
    assert result.exit_code == 1
    assert "the name 'short' is taken" in result.stderr


def test_rules_of_a_file_remove_documents(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(
        f"{PROSE}\n\nOther words without vehicles, enough of them to be kept here.\n"
    )
    (tmp_path / "mine.toml").write_text('[[rule]]\nname = "carts"\nkind = "words"\nwords = ["carts"]\n')
    options = ("--rules", tmp_path / "mine.toml", "--only", "carts", "--workers", "1")
    assert call(tmp_path / "text.txt", tmp_path / "out", *options).exit_code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["removed"]["carts"]["documents"] == 1
    assert "carts" not in report["removed"]["carts"]["samples"][0]["text"].replace("<carts>", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "shrt"], "no rule shrt; the rules are short, long"),
        (["--without", "nothing"], "no rule nothing"),
        (["--only", "overlap"], "needs --language or --evaluation"),
        (["--language", "xx"], "--language xx: not told apart"),
        (["--personal", "keep"], "'keep' is not one of remove, mask"),
        (["--broken", "keep"], "'keep' is not one of stop, remove"),
        (["--toxicity", "2"], "less than or equal to 1"),
        (["--format", "xml"], "'xml' is not one of"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_is_right(
    tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "text.txt").touch()
    result = call(tmp_path / "text.txt", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_one_path_is_too_few(tmp_path: Path) -> None:
    result = call(tmp_path)
    assert result.exit_code == 2
    assert "the folder to write" in result.stderr


def test_options_reach_the_rules(tmp_path: Path) -> None:
    evaluation = tmp_path / "questions.txt"
    evaluation.write_text(" ".join(PROSE.split()[:13]))
    german = "Die Flüsse tragen das Wasser aus den Bergen ins Meer und formen auf ihrem Weg das ganze Land."
    other = (
        "Boats were always faster than carts, and the mills of the valley were grinding grain all year long."
    )
    (tmp_path / "in.jsonl").write_text("".join(f'{{"body": "{t}"}}\n' for t in (PROSE, german, other, "few")))
    result = call(
        tmp_path / "in.jsonl", tmp_path / "out", "--field", "body", "--evaluation", evaluation,
        "--language", "en", "--minimum-words", "2", "--licence", "MIT", "--workers", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    removed = {name: entry["documents"] for name, entry in report["removed"].items() if entry["documents"]}
    assert removed == {"short": 1, "language": 1, "overlap": 1}
    assert list(report["run"]["evaluation"]) == [f"{evaluation}"]
    assert "Licence: MIT" in (tmp_path / "out" / "datacard.md").read_text()
