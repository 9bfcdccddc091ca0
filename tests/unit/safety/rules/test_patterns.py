from __future__ import annotations

import importlib
import re
from itertools import pairwise
from typing import Any

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safety.rules.bounds import Unbounded, bounds
from safety.rules.catalogue import rules
from safety.rules.lists import Words
from safety.rules.patterns import Pattern
from safety.rules.rule import Finding, Rule
from safety.rules.spans import apart

BUILT_IN = [rule for rule in rules() if isinstance(rule, Pattern)]
LISTED = Words("listed", "words", ["bad word", "idiot", "c++", "傻瓜", "mother-in-law"])


def named(rule: Rule) -> str:
    return rule.name


def repeats(node: Any) -> list[tuple[str, int, int]]:
    """Every repetition in a tree of the standard library's parser, however deep."""
    found = []
    if isinstance(node, tuple) and len(node) == 2 and str(node[0]).endswith("_REPEAT"):
        least, most, _ = node[1]
        found.append((str(node[0]), int(least), int(most)))
    if isinstance(node, tuple | list) or hasattr(node, "data"):
        for part in getattr(node, "data", node):
            found += repeats(part)
    return found


@pytest.mark.parametrize("rule", BUILT_IN, ids=named)
def test_no_attempt_of_a_pattern_goes_back(rule: Pattern) -> None:
    parser: Any = importlib.import_module("re._parser")
    for operation, least, most in repeats(parser.parse(rule.pattern)):
        assert most <= 1300
        assert operation == "POSSESSIVE_REPEAT" or least == most


def test_the_walk_sees_a_repetition_that_goes_back() -> None:
    parser: Any = importlib.import_module("re._parser")
    assert repeats(parser.parse(r"(?<!x)(?:a|b(c{1,3}+d*)){2}")) == [
        ("MAX_REPEAT", 2, 2),
        ("POSSESSIVE_REPEAT", 1, 3),
        ("MAX_REPEAT", 0, int(importlib.import_module("re._constants").MAXREPEAT)),
    ]


@pytest.mark.parametrize(
    ("pattern", "longest", "ways"),
    [
        ("abc", 3, 1),
        ("a{2,5}", 5, 4),
        ("(?:a|bb){3}", 6, 8),
        ("(?:a{1,2}){1,2}", 4, 6),
        ("(?:a|bb){1,3}+", 6, 1),
        (r"\ba(?!bcd)", 3, 1),
        ("(?<!x)a(?=y)", 1, 1),
    ],
)
def test_bounds_of_a_pattern(pattern: str, longest: int, ways: int) -> None:
    assert (bounds(pattern).longest, bounds(pattern).ways) == (longest, ways)


@pytest.mark.parametrize(
    "pattern", ["a*", "a+", "a{3,}", "(?:ab++)", "^a", r"a\Z", "(?=a*)b", "(?:a{0,99}){9}"]
)
def test_patterns_without_bounds(pattern: str) -> None:
    with pytest.raises(Unbounded):
        bounds(pattern)


# What rules are made of, and what makes their candidates overlap.
_DIGITS = (
    "0 1 4111 1111 212 555 030 123456 +49 3704 0044 0532 0130 00 8.8.8.8 078-05-1120 123-45-6789 2001:4860"
)
_SIGNS = "+ - . : @ / ( ) _ \" ' = :: ://"
_LETTERS = "a B é 傻 瓜 Z x b.org DE89 bad word sk- ghp_ AKIA eyJ api_key idiot c++ \u200b"
_OTHERS = [" ", "\n", "A1b2" * 10, "mother in law"]
PIECES = st.lists(
    st.sampled_from([*_DIGITS.split(), *_SIGNS.split(), *_LETTERS.split(), *_OTHERS]), max_size=60
).map("".join)


@pytest.mark.parametrize("rule", [*BUILT_IN, LISTED], ids=named)
@settings(max_examples=40, deadline=None)
@example(text="4111 1111 1111 1111 4111 1111 1111 1111", spare=0)
@example(text="212-555-1234-212-555-1234", spare=0)
@given(text=PIECES, spare=st.integers(0, 5))
def test_a_window_around_a_match_finds_what_the_whole_text_does(rule: Rule, text: str, spare: int) -> None:
    whole = list(rule.find(text))
    for finding in whole:
        assert 0 < finding.end - finding.start <= rule.longest
        start = max(0, finding.start - rule.longest - 1 - spare)
        window = text[start : finding.end + rule.longest + 1 + spare]
        found = {(one.start + start, one.end + start) for one in rule.find(window)}
        assert (finding.start, finding.end) in found
    for before, after in pairwise(whole):
        assert before.end <= after.start


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)).map(lambda pair: (pair[0], sum(pair)))))
def test_spans_cut_apart_cover_what_the_spans_cover(spans: list[tuple[int, int]]) -> None:
    cut = list(apart(sorted(spans)))
    covered = {place for start, end in spans for place in range(start, end)}
    assert [place for start, end in cut for place in range(start, end)] == sorted(covered)


def test_a_match_that_the_check_refuses_hides_no_other() -> None:
    rule = Pattern(
        "even", "words", "[0-9]{2}", lambda text, start, end: end if int(text[end - 1]) % 2 == 0 else None
    )
    assert list(rule.find("132")) == [Finding("even", 1, 3)]


@pytest.mark.parametrize("rule", BUILT_IN, ids=named)
def test_both_parsers_read_the_pattern(rule: Pattern) -> None:
    assert regex.compile(rule.pattern).groups == re.compile(rule.pattern).groups


def test_names_are_unique_and_kinds_are_known() -> None:
    names = [rule.name for rule in rules()]
    assert len(set(names)) == len(names)
    assert {rule.kind for rule in rules()} == {"personal", "secret"}
