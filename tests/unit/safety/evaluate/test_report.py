"""The page needs no other file, shows every text as text, and its plots have the values of the rows."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from safety.evaluate.report import Axis, Measured, Report, page, sections, some_texts, tables, write
from safety.evaluate.rows import Drift, Row

HOSTILE = "<script>alert(1)</script>\" onload='x' & \x00\x1b[31m {{ 7 * 7 }} </pre></svg>"
ROWS = [
    Row("crows", "sum", "", "stereotype", 0.56, 0.53, 0.59, 1508),
    Row("crows", "sum", "age", "stereotype", 0.5, 0.4, 0.6, 87),
    Row("crows", "mean", "", "stereotype", 0.6, 0.57, 0.63, 1508),
    Row("bbq", "accuracy", HOSTILE, "bias", -0.25, -0.5, math.nan, 12),
]
FIRST = Measured("one", {"weights": "ab", "precision": "fp32"}, ROWS, [("toxicity", "t1", HOSTILE)])
SECOND = Measured("two", {"precision": "int8"}, [replace(row, value=row.value + 0.1) for row in ROWS[:3]])
DRIFT = [
    Drift("crows", "sum", "", 0.04, 0.03, 0.05, None, 0.002, 1508),
    Drift("crows", "sum", "age", 0.1, 0.05, 0.2, 0.25, 0.004, 87),
]
ONE = Report([FIRST], {"crows": 1508, "bbq": 12}, "f" * 64, None, 0, [HOSTILE])
TWO = replace(ONE, models=[FIRST, SECOND], sample=700, seed=3, drift=DRIFT)


class Read(HTMLParser):
    """Every tag with its attributes, the text of the page, and the tags that were not closed."""

    VOID = frozenset({"meta", "line", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Read:
    found = Read()
    found.feed(text)
    found.close()
    return found


@pytest.mark.parametrize("report", [ONE, TWO])
def test_the_page_is_whole_and_loads_nothing(report: Report) -> None:
    text = page(report)
    found = read(text)
    assert found.open == []
    names = {tag for tag, _ in found.tags}
    assert names.isdisjoint({"script", "img", "link", "iframe", "object", "use", "image"})
    attributes = {name for _, attrs in found.tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on") or name == "src"]
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in found.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "prefers-color-scheme:dark" in text
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in {
        item for _, attrs in found.tags for item in attrs.items()
    }


def test_a_hostile_text_is_shown_as_it_is() -> None:
    found = read(page(ONE))
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert found.text.count(shown) >= 3  # as a note, a category and an answer
    assert "{{ 7 * 7 }}" in found.text


def test_titles_say_what_a_mark_and_a_cell_stand_for() -> None:
    text = page(TWO)
    assert "<title>age: 0.5000 (0.4000–0.6000), n 87</title>" in text
    assert 'title="all: 0.5600 (0.5300–0.5900), n 1508"' in text
    assert "0.0400 of 1508 items flip" in text


def test_marks_stand_where_their_values_are() -> None:
    (drift, _, mean, total) = sections(TWO)
    assert drift.title == "Drift"
    assert (mean.title, total.title) == ("crows: mean", "crows: sum")
    (plot,) = total.plots
    assert [line.label for line in plot.lines] == ["all", "age"]
    marks = [(mark.at, mark.low, mark.high, mark.series) for line in plot.lines for mark in line.marks]
    assert marks == [(56, 53, 59, 0), (66, 53, 59, 1), (50, 40, 60, 0), (60, 40, 60, 1)]
    assert plot.ticks == [(0, "0"), (20, "0.2"), (40, "0.4"), (60, "0.6"), (80, "0.8"), (100, "1")]
    assert [mark.at for line in drift.plots[0].lines for mark in line.marks] == [80]


def test_a_row_that_one_model_lacks_is_a_gap() -> None:
    bias = next(section for section in sections(TWO) if section.title.startswith("bbq"))
    assert [cell.text for cell in bias.grid.rows[0]] == [HOSTILE, "bias", "-0.2500", "–", "12"]


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6))
def test_no_mark_leaves_its_plot(values: list[tuple[float, float, float]]) -> None:
    axis = Axis.over([number for triple in values for number in triple])
    for value, low, high in values:
        mark = axis.mark(value, low, high, 0, "")
        assert all(0 <= place <= 100 for place in (mark.at, mark.low, mark.high))


def test_the_terminal_shows_whole_sets_and_the_drift() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        for shown in tables(TWO):
            console.print(shown)
    text = captured.get()
    assert "0.56 (0.53–0.59)" in text
    assert "0.66 (0.53–0.59)" in text
    assert "0.0400" in text
    assert "age" not in text


def test_the_json_has_every_row() -> None:
    found = json.loads(TWO.to_json())
    assert found["version"] == 1
    assert found["sample"] == 700
    assert found["models"][0]["rows"][3]["high"] is None
    assert found["models"][1]["rows"][0]["value"] == pytest.approx(0.66)
    assert [row["flips"] for row in found["drift"]] == [0.04, 0.1]


def test_some_texts_of_each_set_are_shown() -> None:
    texts = [(name, f"{name}{n}", "text") for name in "ab" for n in range(30)]
    shown = some_texts(texts)
    assert {name for name, _, _ in shown} == {"a", "b"}
    assert len(shown) < 20


def test_files_are_replaced_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("report")
    first = write(ONE, folder)
    before = [path.read_text() for path in first]
    assert write(TWO, folder) == first
    assert [path.read_text() for path in first] != before
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]


@given(st.floats(-1e6, 0), st.floats(1e-3, 1e6))
def test_ticks_are_a_few_round_numbers_at_their_places(low: float, high: float) -> None:
    axis = Axis(low, high)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 7
    assert [place for place, _ in ticks] == sorted({place for place, _ in ticks})
    for place, label in ticks:
        assert len(label.strip("-").split("e")[0].replace(".", "").strip("0")) <= 3
        assert low + (high - low) * place / 100 == pytest.approx(float(label), abs=0.006 * (high - low))
