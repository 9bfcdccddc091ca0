"""The engine without Triton, driven by JSON: scores and answers in any order; bad commands end nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import InvalidArgument
from engine.edge.settings import read_settings
from inprocess import InProcess
from tests.models import tiny
from tests.models.tiny_engine import NAME, publish
from tests.paths import PYTHONPATH, ROOT

WINDOWS = [[3, 4, 5, 6], [3, 4, 5, 7], [3, 4], [9, 8, 7, 6, 5, 4, 3]]
SETTINGS = {"slots": "3", "max_context": "64", "max_queue": "2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("inprocess")) / f"{NAME}_engine" / "1"


@pytest.fixture(scope="module")
def engine(folder: Path) -> InProcess:
    return InProcess(folder, read_settings(SETTINGS))


def prompts(*seeds: int | None) -> list[dict[str, Any]]:
    return [
        {"tokens": [3, 4, 5], "max_tokens": 6, "seed": seed, "temperature": 0 if seed is None else 1}
        for seed in seeds
    ]


def score(engine: InProcess, **command: Any) -> Any:
    return engine.answer({"do": "score", **command})["losses"]


def complete(engine: InProcess, found: list[dict[str, Any]]) -> Any:
    return engine.answer({"do": "complete", "prompts": found})["answers"]


def test_windows_of_one_length_score_as_those_with_starts(engine: InProcess) -> None:
    equal = WINDOWS[:2]
    assert score(engine, windows=equal) == score(engine, windows=equal, starts=[1, 1])


def test_scores_are_the_same_after_answers_and_answers_after_scores(engine: InProcess) -> None:
    scores = score(engine, windows=WINDOWS, starts=[1, 2, 1, 3])
    answers = complete(engine, prompts(1, 2, None))
    assert score(engine, windows=WINDOWS, starts=[1, 2, 1, 3]) == scores
    assert complete(engine, prompts(1, 2, None)) == answers


def test_more_prompts_than_the_service_takes_are_answered_in_their_order(engine: InProcess) -> None:
    many = complete(engine, prompts(*range(12)))
    assert [complete(engine, prompts(seed))[0] for seed in range(12)] == many
    assert len({answer["text"] for answer in many}) > 1
    assert all(answer["finish"] in {"length", "stop"} for answer in many)


def test_a_chat_is_rendered_by_the_models_template(engine: InProcess) -> None:
    (found,) = engine.answer({"do": "chat", "messages": ["the"]})["prompts"]
    assert [tiny.VOCAB[token] for token in found][-1] == "<|endoftext|>"
    assert "".join(tiny.VOCAB[token] for token in found) == "the<|endoftext|>"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ({"do": "sing"}, "do: 'sing', must be score"),
        ({"do": "score", "windows": [[3, 4]], "starts": [5]}, r"starts\[0\]: 5"),
        ({"do": "complete", "prompts": [{"tokens": [3], "max_tokens": 0}]}, r"prompts\[0\]: .*max_tokens"),
        ({"do": "complete", "prompts": [{"max_tokens": 2}]}, r"prompts\[0\]: 'tokens'"),
        ({"do": "complete", "prompts": [{"tokens": [3], "maximum": 2}]}, r"prompts\[0\]: .*maximum"),
        ({"do": "complete", "prompts": [{"tokens": [3] * 70, "max_tokens": 2}]}, "at most 63 .context of 64"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(
    engine: InProcess, command: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        engine.answer(command)
    assert len(complete(engine, prompts(1))) == 1


def test_the_program_answers_a_bad_line_and_goes_on(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "server/inprocess.py"), str(folder)]
    good = json.dumps({"do": "score", "windows": WINDOWS, "starts": [1] * 4})
    lines = ["{", "[]", '{"do": "score"}', '{"do": "generate", "prompts": [[99999]], "max_tokens": 1}', good]
    ended = subprocess.run(
        [*command, "--parameters", json.dumps(SETTINGS)], input="\n".join(lines), text=True, check=True,
        capture_output=True, timeout=120, env={"PYTHONPATH": PYTHONPATH},
    )  # fmt: skip
    ready, *refused, last = map(json.loads, ended.stdout.splitlines())
    assert ready["ready"]
    assert ready["card"]["name"] == NAME
    assert [list(answer) for answer in refused] == [["error"]] * 4
    assert len(last["losses"]) == 4
