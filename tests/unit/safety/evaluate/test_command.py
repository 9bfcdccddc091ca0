"""The command: a run, its interruption, its sample, a comparison, and how each ends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from safety.evaluate import own
from safety.evaluate.ask import CHAT_TOKENS, SAMPLES
from safety.evaluate.command import EXAMPLES, Parts, evaluate_command
from safety.evaluate.items import Choice
from safety.evaluate.model import Completion, Model, ModelError
from safety.evaluate.table import Judges
from tests.fakes.models import LetterModel

ITEMS = list(own.items())
PAIRS = next(item.set for item in ITEMS if isinstance(item, Choice))
JUDGES = Judges(
    toxicity=lambda texts: [len(text) % 3 / 2 for text in texts],
    sentiment=lambda texts: [len(text) % 5 / 4 for text in texts],
)


@dataclass
class Desk:
    """Opens letters under the names that it has, and keeps what was opened."""

    models: dict[str, LetterModel]
    opened: list[LetterModel] = field(default_factory=list)

    def evaluate(self, *words: str) -> Result:
        app = typer.Typer()
        app.command("evaluate", epilog=EXAMPLES)(evaluate_command)
        app.callback()(self._connect)
        return CliRunner().invoke(app, ["evaluate", *words])

    def _connect(self, context: typer.Context) -> None:
        context.obj = Parts(self._open, lambda: JUDGES)

    @contextmanager
    def _open(self, text: str, repository: Path | None, tokenizer: Path | None) -> Iterator[Model]:
        if text not in self.models:
            raise ModelError(f"model {text!r}: not built")
        self.opened.append(self.models[text])
        yield self.models[text]


def desk(**changes: Any) -> Desk:
    both = LetterModel(positions=9999, **changes), LetterModel("other", taste=9, positions=9999)
    return Desk({"letters": both[0], "other": both[1]})


def report_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    return found


def test_a_run_writes_its_report_and_asks_nothing_twice(tmp_path: Path) -> None:
    ended = desk().evaluate("letters", "--out", str(tmp_path))
    assert ended.exit_code == 0, ended.output
    found = report_in(tmp_path)
    assert sum(found["sets"].values()) == len(ITEMS)
    assert found["sample"] is None
    assert {row["set"] for row in found["models"][0]["rows"]} <= set(found["sets"])
    assert PAIRS in ended.stdout
    assert "<h1>Safety: letters</h1>" in (tmp_path / "report.html").read_text("utf-8")
    again = desk()
    assert again.evaluate("letters", "--out", str(tmp_path)).exit_code == 0
    assert report_in(tmp_path) == found
    assert len(again.models["letters"].asked) <= 2  # whether it answers prompts at all


def test_an_interrupted_run_says_how_it_goes_on_and_does(tmp_path: Path) -> None:
    words = "letters", "--only", own.FACTS, "--out"
    # Beyond what the estimate asks.
    stopped = desk(fails_after=200).evaluate(*words, str(tmp_path / "part"))
    assert stopped.exit_code == 130
    assert "the same command goes on" in stopped.stderr
    assert not (tmp_path / "part" / "report.json").exists()
    (kept,) = (tmp_path / "part").glob("answers-*.jsonl")
    assert len(kept.read_text("utf-8").splitlines()) > 2
    assert desk().evaluate(*words, str(tmp_path / "part")).exit_code == 0
    assert desk().evaluate(*words, str(tmp_path / "whole")).exit_code == 0
    assert report_in(tmp_path / "part") == report_in(tmp_path / "whole")


def test_a_sample_is_printed_with_its_seed_and_repeats(tmp_path: Path) -> None:
    words = ["letters", "--only", own.FACTS, "--sample", "30", "--seed", "3", "--out"]
    ended = desk().evaluate(*words, str(tmp_path / "a"))
    found = report_in(tmp_path / "a")
    assert f"A sample of {found['sample']} of 100 items, seed 3." in ended.stderr
    assert 20 <= found["sample"] <= 40  # of every category its share, rounded
    assert found["seed"] == 3
    desk().evaluate(*words, str(tmp_path / "b"))
    assert report_in(tmp_path / "a") == report_in(tmp_path / "b")
    other = desk().evaluate(*words[:-2], "4", "--out", str(tmp_path / "a"))
    assert other.exit_code == 1
    assert "plan.json" in other.stderr


def test_too_many_items_for_the_time_become_a_sample_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desk()
    seconds = SAMPLES * CHAT_TOKENS

    def clock() -> float:
        """Each completion takes long."""
        return float(seconds * sum(isinstance(one, Completion) for one in first.models["letters"].asked))

    monkeypatch.setattr("time.monotonic", clock)
    assert first.evaluate("letters", "--out", str(tmp_path)).exit_code == 0
    found = report_in(tmp_path)
    assert 0 < found["sample"] < len(ITEMS)
    # Another speed now, and another model: the same items.
    monkeypatch.undo()
    assert desk().evaluate("letters", "--against", "other", "--out", str(tmp_path)).exit_code == 0
    assert report_in(tmp_path)["sample"] == found["sample"]
    assert report_in(tmp_path)["models"][0] == found["models"][0]


def test_a_comparison_has_both_models_and_their_drift(tmp_path: Path) -> None:
    ended = desk().evaluate("letters", "--against", "other", "--only", PAIRS, "--out", str(tmp_path))
    assert ended.exit_code == 0, ended.output
    found = report_in(tmp_path)
    assert [model["name"] for model in found["models"]] == ["letters", "other"]
    assert list(found["sets"]) == [PAIRS]
    assert found["drift"]
    assert 0 < found["drift"][0]["flips"] < 1
    assert "Drift" in ended.stdout
    itself = desk().evaluate("letters", "--against", "letters", "--only", PAIRS, "--out", str(tmp_path / "x"))
    assert itself.exit_code == 0
    assert {row["flips"] for row in report_in(tmp_path / "x")["drift"]} == {0}


def test_what_a_model_cannot_do_is_left_out_and_said(tmp_path: Path) -> None:
    ended = desk(answers=False).evaluate("letters", "--out", str(tmp_path))
    assert ended.exit_code == 0, ended.output
    assert "letters do not answer" in ended.stderr
    found = report_in(tmp_path)
    assert len(found["notes"]) == 2
    assert set(found["sets"]) == {item.set for item in ITEMS if isinstance(item, Choice)}


def test_another_build_of_a_model_is_asked_anew(tmp_path: Path) -> None:
    words = "letters", "--only", PAIRS, "--out", str(tmp_path)
    desk().evaluate(*words)
    before = report_in(tmp_path)["models"][0]
    rebuilt = desk(taste=8)
    assert rebuilt.evaluate(*words).exit_code == 0
    assert report_in(tmp_path)["models"][0]["facts"] != before["facts"]
    assert len(rebuilt.models["letters"].asked) >= 2
    assert desk().evaluate(*words).exit_code == 0
    assert report_in(tmp_path)["models"][0] == before


def test_other_items_need_another_folder(tmp_path: Path) -> None:
    desk().evaluate("letters", "--only", PAIRS, "--out", str(tmp_path))
    ended = desk().evaluate("letters", "--out", str(tmp_path))
    assert ended.exit_code == 1
    assert "its run had other items" in ended.stderr
    assert "give another --out" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gpt9"], 1, "model 'gpt9': not built"),
        (["letters", "--only", "nothing"], 2, "'nothing', must be one of"),
        (["letters", "--sample", "0"], 2, "--sample"),
        (["letters", "--minutes", "0"], 2, "--minutes"),
        (["letters", "--data", "nowhere"], 2, "--data"),
        ([], 2, "MODEL"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(
    tmp_path: Path, words: Sequence[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = desk().evaluate(*words)
    assert ended.exit_code == code
    assert message in ended.stderr
    assert not list(tmp_path.iterdir())


def test_help_has_examples() -> None:
    ended = desk().evaluate("--help")
    assert ended.exit_code == 0
    assert "python -m safety evaluate smollm2" in ended.stdout
