from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from loadtest import pages
from loadtest.measure.comparison import Run, compare
from loadtest.measure.record import Record
from loadtest.measure.result import Facts, Result, ServerFacts, decode, encode, summarise
from loadtest.measure.sweep import Rung, sweep_of
from loadtest.pages.plots import legend_text
from loadtest.pages.reports import ENVIRONMENT
from tests.unit.loadtest.play import facts, play, played
from tests.unit.loadtest.records import records

ATTACK = "<script>alert(1)</script>\"'&$x_1$_\x00"
_VOID = {"meta", "br", "hr"}
_LOADS = {"src", "srcset", "data", "poster", "action", "formaction", "background"}


class Page(HTMLParser):
    """Fails on what is not well formed; keeps tags, ids, addresses and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"a handler: {name}"
            self.ids += [value or ""] if name == "id" else []
            self.links += [value or ""] if name in ("href", "xlink:href") else []
            self.loads += [value or ""] if name in _LOADS else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(text: str) -> Page:
    """Well formed, of one piece, with no reference that leaves it or leads nowhere."""
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object", "base"} & set(page.tags)
    assert page.loads == []
    assert len(set(page.ids)) == len(page.ids)
    assert {link[0] for link in page.links} <= {"#"}
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    return page


def page_of(result: Result, found: list[Record]) -> Page:
    with TemporaryDirectory() as folder:
        paths = pages.write(result, found, Path(folder))
        for path in paths[1:]:
            assert path.read_bytes().startswith(b"\x89PNG")
        return checked(paths[0].read_text("utf-8"))


def test_a_run_has_its_figures_and_numbers() -> None:
    page = page_of(played(1), play(1))
    assert page.tags.count("svg") == 7
    said = " ".join(page.text)
    for words in ("SLO met", "127.0.0.1:8001", "time to first token (TTFT)", "KV cache in use", "Profile"):
        assert words in said


def test_a_figure_never_names_its_light_colours() -> None:
    with TemporaryDirectory() as folder:
        text = pages.write(played(1), play(1), Path(folder))[0].read_text("utf-8")
    assert "var(--line-0)" in text
    assert "#0072b2" not in text[text.index("<svg") :]


@pytest.mark.parametrize(
    "found",
    [
        [],
        [play(1)[30]],
        [replace(record, phase="warmup") for record in play(1)[:3]],
        [r for r in play(1) if r.protocol == "unary"],
        [r for r in play(1) if r.error is not None],
    ],
    ids=["empty", "one", "warmup", "unary", "errors"],
)
def test_a_thin_run_says_so(found: list[Record]) -> None:
    said = " ".join(page_of(summarise(found, facts(gauges={})), found).text)
    measured = sum(record.phase == "measure" for record in found)
    assert (
        "no request fell into the measured window" if not measured else f"{measured} requests were"
    ) in said
    assert "The server's metrics were not read." in said


def test_names_of_others_stay_text() -> None:
    hostile = Facts(
        profile={"name": ATTACK, "description": ATTACK, "slo": {"ttft_p99_s": 1}, ATTACK: [ATTACK]},
        started=ATTACK,
        machine={"cpu": ATTACK, "cores": ATTACK, "commit": ATTACK},
        server=ServerFacts(ATTACK, ATTACK, (ATTACK,)),
        window_s=(10.0, 60.0),
        gauges={"running": ((1.0, 2.0),), ATTACK: ((1.0, 2.0),)},
    )
    found = [replace(r, kind=ATTACK, error=r.error and ATTACK, model=ATTACK, expected=False) for r in play(1)]
    result = summarise(found, hostile)
    assert "alert(1)" in " ".join(page_of(result, found).text)
    run = Run(result, found)
    checked(pages.versus_page(compare(run, run), (run, run), [ATTACK]))


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records(), max_size=5))
def test_any_run_has_a_page(found: list[Record]) -> None:
    page_of(summarise(found, facts()), found)


@pytest.mark.parametrize("rates", [(2.0,), (1.0, 4.0, 16.0)])
def test_a_sweep_has_a_page(rates: tuple[float, ...], tmp_path: Path) -> None:
    paths = pages.write_sweep(sweep_of(facts().profile, [Rung(r, played(1, r)) for r in rates]), tmp_path)
    page = checked(paths[0].read_text("utf-8"))
    assert page.tags.count("svg") == 4
    assert "the SLO holds up to" in " ".join(page.text)


def test_a_sweep_of_nothing_but_errors_has_a_page(tmp_path: Path) -> None:
    rungs = [Rung(rate, summarise([], facts())) for rate in (1.0, 0.5)]
    page = checked(pages.write_sweep(sweep_of({}, rungs), tmp_path)[0].read_text("utf-8"))
    assert "the SLO was missed at every rate" in " ".join(page.text)


def test_two_runs_share_their_plots() -> None:
    runs = Run(played(1), play(1)), Run(played(2, step_s=0.05), play(2, step_s=0.05))
    page = checked(pages.versus_page(compare(*runs), runs, ["the machines differ"]))
    said = " ".join(page.text)
    assert "worse" in said
    assert "the machines differ" in said


@given(st.text())
def test_text_is_read_back_as_it_was_written(text: str) -> None:
    shown = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
    page = ENVIRONMENT.from_string('<p title="{{ text }}">{{ text }}</p>').render(text=text)
    assert "".join(Page(page).text) == shown


@given(st.text())
def test_a_legend_shows_any_name(text: str) -> None:
    shown = legend_text(text)
    assert shown
    assert not shown.startswith("_")
    assert shown.count("$") == shown.count(r"\$")


def test_the_profile_is_on_the_page() -> None:
    said = " ".join(page_of(played(1), play(1)).text)
    assert json.dumps(facts().profile, indent=2) in said


FACTS = Facts(
    profile={"name": "chat", "slo": {"ttft_p99_s": 0.5, "request_ttft_s": 0.4}},
    started="2026-11-01T10:00:00+00:00",
    machine={"cpu": "a CPU", "cores": 2, "date": "2026-11-01", "commit": "abc", "uncommitted_changes": False},
    server=ServerFacts("127.0.0.1:8001", "2.51.0", ("smollm2",)),
    window_s=(10.0, 60.0),
    gauges={"running": ((1.0, 2.0), (2.0, 3.0))},
)


@given(st.lists(records(), max_size=6))
def test_a_result_survives_its_file(found: list[Record]) -> None:
    result = summarise(found, FACTS)
    assert decode(encode(result)) == result


@given(st.lists(records(), max_size=6))
def test_any_run_fits_on_a_screen(found: list[Record]) -> None:
    output = io.StringIO()
    pages.show(summarise(found, FACTS), Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "TTFT" in output.getvalue()
