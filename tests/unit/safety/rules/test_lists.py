from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.rules.lists import Words
from safety.rules.rule import RuleError


def found(words: list[str], text: str) -> list[str]:
    return [text[one.start : one.end] for one in Words("listed", "words", words).find(text)]


@pytest.mark.parametrize(
    ("word", "text", "parts"),
    [
        ("bad word", "a BAD  Word, a bad-word, badword, bad, word", ["BAD  Word", "bad-word"]),
        (
            "idiot",
            "Idiot idiots ｉｄｉｏｔ id\u200biot idi\u043et",
            ["Idiot", "ｉｄｉｏｔ", "id\u200biot", "idi\u043et"],
        ),
        ("straße", "STRASSE strasse Straße", ["STRASSE", "strasse", "Straße"]),
        ("schwul", "schwül schwul", ["schwul"]),
        ("schwül", unicodedata.normalize("NFD", "schwül"), [unicodedata.normalize("NFD", "schwül")]),
        ("c++", "use C++! not c or c+", ["C++"]),
        ("a$$", "class a$$ ass", ["a$$"]),
        ("傻瓜", "你是傻瓜吗", ["傻瓜"]),
        ("snake_case", "snake_case snake case", ["snake_case", "snake case"]),
    ],
)
def test_finds_a_word_however_it_is_written(word: str, text: str, parts: list[str]) -> None:
    assert found([word], text) == parts


def test_the_longest_phrase_is_found() -> None:
    assert found(["bad", "bad word", "word here"], "a bad word here") == ["bad word", " here"]


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1), st.text("abcABC .,", max_size=60))
def test_equals_a_pattern_of_all_words(words: list[str], text: str) -> None:
    listed = "|".join(sorted(words, key=len, reverse=True))
    expected = [match.span() for match in re.finditer(rf"(?i)\b(?:{listed})\b", text)]
    assert [(one.start, one.end) for one in Words("listed", "words", words).find(text)] == expected


def test_a_word_blown_up_by_unseen_characters_is_not_longer_than_the_bound() -> None:
    rule = Words("listed", "words", ["ab"])
    assert rule.longest == 4
    assert [one.end for one in rule.find("a\u200b\u200bb")] == [4]
    assert not list(rule.find("a\u200b\u200b\u200bb"))


@pytest.mark.parametrize("words", [[], [" - "]])
def test_a_list_without_words_is_no_rule(words: list[str]) -> None:
    with pytest.raises(RuleError, match="rule listed: "):
        Words("listed", "words", words)
