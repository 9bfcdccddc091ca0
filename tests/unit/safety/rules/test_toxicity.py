"""The toxicity classifier against the package that it comes from, and against its formula in plain Python."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from safety.rules import toxicity
from safety.rules.export import SETTINGS, ExportError, arrays, export
from safety.rules.judge_toxicity import classifier_command, judge, lines
from safety.rules.toxicity import WEIGHTS, Toxicity, WeightsError, words

PAIRS: list[tuple[str, float]] = json.loads(
    (Path(__file__).parent / "toxicity_pairs.json").read_text("utf-8")
)["pairs"]
MODEL = Toxicity.load()
KNOWN = st.sampled_from([word for word in MODEL.column if word.isascii()])
TEXT = st.lists(st.one_of(KNOWN, st.text(max_size=8)), max_size=30).map(" ".join)


def by_the_formula(counts: Counter[str]) -> float:
    """One text, word by word."""
    known = {MODEL.column[word]: count for word, count in counts.items() if word in MODEL.column}
    values = {column: count * float(MODEL.idf[column]) for column, count in known.items()}
    length = math.sqrt(math.fsum(value**2 for value in values.values())) or 1.0
    probabilities = []
    for machine, intercept, slope, offset in zip(
        MODEL.coefficients, MODEL.intercepts, MODEL.slopes, MODEL.offsets, strict=True
    ):
        margin = math.fsum(value / length * machine[column] for column, value in values.items()) + intercept
        probabilities.append(1 / (1 + math.exp(slope * margin + offset)))
    return math.fsum(probabilities) / len(probabilities)


def counted(text: str) -> Counter[str]:
    return Counter(re.findall(r"(?u)\b\w\w+\b", text.lower()))


def test_scores_equal_what_the_package_wrote() -> None:
    scores = MODEL.scores([text for text, _ in PAIRS])
    np.testing.assert_allclose(scores, [score for _, score in PAIRS], rtol=0, atol=1e-9)
    assert len(PAIRS) == 60
    assert scores.min() < 0.01
    assert scores.max() > 0.99


@given(st.text())
def test_words_are_those_of_the_package_but_for_single_letters(text: str) -> None:
    assert [word for word in words(text) if len(word) > 1] == re.findall(r"(?u)\b\w\w+\b", text.lower())


@given(TEXT, TEXT)
def test_a_joined_text_scores_as_the_sum_of_its_counts(first: str, second: str) -> None:
    score = MODEL.scores([f"{first} {second}"])[0]
    assert score == pytest.approx(by_the_formula(counted(first) + counted(second)), abs=1e-12)
    assert 0 <= score <= 1


@given(st.lists(KNOWN, max_size=20).flatmap(lambda few: st.tuples(st.just(few), st.permutations(few))))
def test_neither_order_nor_case_of_the_words_matters(both: tuple[list[str], list[str]]) -> None:
    first, second = both
    scores = MODEL.scores([" ".join(first), " ".join(second), " ".join(second).upper()])
    assert scores[0] == scores[1] == scores[2]


def test_a_word_counts_as_often_as_it_stands() -> None:
    once, twice = MODEL.scores(["damn lovely dinner", "damn damn lovely dinner"])
    assert twice > once


@given(st.lists(TEXT, max_size=12), st.integers(1, 100))
def test_a_score_does_not_depend_on_the_texts_beside_it(texts: list[str], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toxicity, "BLOCK", block)
        together = MODEL.scores(texts)
    assert together.shape == (len(texts),)
    # The vector unit's exponential may differ in the last bit between a full vector and a rest.
    np.testing.assert_allclose(together, [MODEL.scores([text])[0] for text in texts], rtol=0, atol=1e-15)


def test_a_text_without_known_words_has_the_score_of_an_empty_one() -> None:
    nothing, unknown, letters = MODEL.scores(["", "qqqqzzzz \u2603", "a I x"])
    assert nothing == unknown == letters
    assert nothing == pytest.approx(by_the_formula(Counter()), abs=1e-15)


def test_changed_weights_are_refused_by_name(tmp_path: Path) -> None:
    changed = tmp_path / "weights.npz"
    changed.write_bytes(WEIGHTS.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match=re.escape(str(changed))):
        Toxicity.load(changed)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, words=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        Toxicity.load(path, hashlib.sha256(path.read_bytes()).hexdigest())


def vectorizer(**changed: Any) -> SimpleNamespace:
    return SimpleNamespace(
        get_params=lambda: {**SETTINGS, **changed},
        vocabulary_={"café": 1, "bad": 0},
        idf_=np.array([2.0, 1.5]),
    )


def classifier(method: str = "sigmoid") -> SimpleNamespace:
    parts = [
        SimpleNamespace(
            estimator=SimpleNamespace(coef_=np.array([[weight, -1.0]]), intercept_=np.array([0.5])),
            calibrators=[SimpleNamespace(a_=-1.0, b_=0.25)],
        )
        for weight in (1.0, 3.0)
    ]
    return SimpleNamespace(method=method, calibrated_classifiers_=parts)


def test_an_exported_classifier_scores_as_its_parts_say(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, **arrays(vectorizer(), classifier()))
    model = Toxicity.load(path, hashlib.sha256(path.read_bytes()).hexdigest())
    # Of two equal words with a length of 1 all that counts is the weight: margins 1.5 and 3.5; -0.5 for both.
    bad = (1 / (1 + math.exp(-1.25)) + 1 / (1 + math.exp(-3.25))) / 2
    assert model.scores(["bad bad", "Café"]) == pytest.approx([bad, 1 / (1 + math.exp(0.75))])


@pytest.mark.parametrize(("name", "value"), [("ngram_range", (1, 2)), ("binary", True), ("norm", None)])
def test_a_setting_that_the_scores_would_ignore_is_refused(name: str, value: object) -> None:
    with pytest.raises(ExportError, match=name):
        arrays(vectorizer(**{name: value}), classifier())


def test_another_calibration_is_refused() -> None:
    with pytest.raises(ExportError, match="isotonic"):
        arrays(vectorizer(), classifier("isotonic"))


def test_an_export_without_the_package_says_what_to_install(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(export)
    result = CliRunner().invoke(app, [str(tmp_path / "weights.npz")])
    assert result.exit_code == 2
    assert "install alt-profanity-check==1.9.1" in result.output
    assert not list(tmp_path.iterdir())


def test_shares_count_scores_from_the_threshold_on() -> None:
    toxic = {"a": np.array([0.5, 0.9, 0.1, 0.8]), "b": np.array([0.7])}
    rows = judge(toxic, {"c": np.array([0.2, 0.5])}, [0.5, 0.8])
    found = {(row.measure, row.source, row.threshold): (row.hits, row.n) for row in rows}
    assert found == {
        ("recall", "a", 0.5): (3, 4),
        ("recall", "b", 0.5): (1, 1),
        ("recall", "all", 0.5): (4, 5),
        ("false positives", "c", 0.5): (1, 2),
        ("false positives", "all", 0.5): (1, 2),
        ("precision", "all", 0.5): (4, 5),
        ("recall", "a", 0.8): (2, 4),
        ("recall", "b", 0.8): (0, 1),
        ("recall", "all", 0.8): (2, 5),
        ("false positives", "c", 0.8): (0, 2),
        ("false positives", "all", 0.8): (0, 2),
        ("precision", "all", 0.8): (2, 2),
    }
    assert all(row.low <= row.hits / row.n <= row.high for row in rows)


def test_lines_are_counted_once() -> None:
    assert lines("one\n\n  two \none\n") == ["one", "two"]


def test_the_command_prints_and_writes_the_shares(tmp_path: Path) -> None:
    (tmp_path / "toxic.txt").write_text("You damn idiot.\nThe dam holds back the river.\n")
    (tmp_path / "neutral.txt").write_text("Thank you for the lovely dinner.\n")
    app = typer.Typer()
    app.command()(classifier_command)
    options = [
        "--toxic",
        str(tmp_path / "toxic.txt"),
        "--neutral",
        str(tmp_path / "neutral.txt"),
        "--json",
        str(tmp_path / "shares.json"),
        "--threshold",
        "0.5",
    ]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert "| recall | toxic.txt | 0.5 | 1 | 2 | 50.0 | 9.5 to 90.5 |" in result.output
    assert "| false positives | neutral.txt | 0.5 | 0 | 1 | 0.0 | 0.0 to 79.3 |" in result.output
    written = json.loads((tmp_path / "shares.json").read_text())
    assert [(row["measure"], row["hits"]) for row in written if row["source"] == "all"] == [
        ("recall", 1),
        ("false positives", 0),
        ("precision", 1),
    ]
