from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.rules.bounds import Unbounded, bounds
from safety.rules.lists import Words

_PIECES = st.lists(
    st.sampled_from(
        ["ass", "see", "you", "cl", " ", "-", "\u200b", "\u200b" * 3, "\u200b" * 9, "\u0301", "é"]
    ),
    max_size=30,
)


@pytest.mark.parametrize("pattern", ["(?:foo){i}b", "(?:foo){e<=1}", "a{b}", "x{", r"\d{2}(?:ab){s,i}"])
def test_a_brace_that_regex_would_read_as_a_fuzzy_match_is_refused(pattern: str) -> None:
    with pytest.raises(Unbounded, match=r"write \\\{"):
        bounds(pattern)


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [(r"a\{b", 3), ("[{]a", 2), ("[]{]x", 2), ("a{2}", 2), ("a{,3}b", 4), ("a{1,3}+", 3)],
)
def test_braces_of_repetitions_of_sets_and_of_escapes_are_read(pattern: str, longest: int) -> None:
    assert bounds(pattern).longest == longest


def test_a_named_set_that_re_would_read_as_letters_is_refused() -> None:
    with pytest.raises(Unbounded, match="nested set at position 1"):
        bounds("[[:alpha:]]{3}")


@given(_PIECES, _PIECES)
def test_a_list_finds_the_same_when_a_stream_let_go_of_the_beginning(
    gone: list[str], kept: list[str]
) -> None:
    rule = Words("listed", "words", ["ass", "see you"])
    before, text = "".join(gone), "".join(kept)
    whole = [(f.start - len(before), f.end - len(before)) for f in rule.find(before + text)]
    least = rule.longest + 1
    assert [span for span in whole if span[0] >= least] == [
        (f.start, f.end) for f in rule.find(text) if f.start >= least
    ]


def test_a_run_of_unseen_characters_does_not_carry_a_word_on() -> None:
    """A window that begins in the run cannot know the letters before it."""
    rule, text = Words("listed", "words", ["ass"]), "cl" + "\u200b" * 40 + "ass"
    assert [(f.start, f.end) for f in rule.find(text)] == [(42, 45)]
    assert [(f.start, f.end) for f in rule.find(text[20:])] == [(22, 25)]


@given(st.text(st.characters(max_codepoint=127)))
def test_a_text_in_ascii_is_read_as_any_other(text: str) -> None:
    """The letter é at the end, apart, takes the text off the fast path."""
    rule = Words("listed", "words", ["a", "b c", "1"])
    assert [*rule.find(text)] == [*rule.find(text + " é")]
