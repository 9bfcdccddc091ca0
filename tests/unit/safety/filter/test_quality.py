from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.filter import quality
from safety.filter.quality import Form, first_broken, shapes
from safety.filter.words import Words

SENTENCE = "The quick brown fox jumps over the lazy dog and runs away from it"
PROSE = (
    "Rivers carry water from the mountains to the sea, and on their way they shape the land. Over long times "
    "they cut valleys, move stones and sand, and leave fertile plains behind. People settled there early: "
    "boats were faster than carts, fields needed little rain, and mills used the current for grinding grain."
)


def removed_by(text: str, form: Form | None = None) -> str | None:
    (shape,) = shapes([text], Words.of([text]))
    return first_broken(shape, form or Form(), tuple(quality.RULES))


def many(lines: int, text: str = SENTENCE) -> str:
    """Lines that differ, so that no rule of repetition sees them."""
    words = text.split()
    return "\n".join(" ".join(f"{word}{chr(97 + i)}" for word in words[:9]) for i in range(lines))


REMOVED = {
    "short": "Too few words for a document",
    "word-length": "x y z a b c d e f g h i j k l m",
    "symbols": "news #one two #three four #five six seven eight nine ten eleven",
    "letters": "scores 1200 : 3000 1700 : 4500 1100 : 2200 1800 : 9000 goals and cards",
    "lines": "\n".join(f"- {line}" for line in many(6).split("\n")),
    "boilerplate": f"Lorem ipsum dolor sit amet and so on. {SENTENCE}",
    "repeated-lines": f"{SENTENCE}\n" * 3 + "\n".join(many(2).split("\n")),
    "repeated-words": f"{PROSE} {' '.join(['buy cheap pills here'] * 9)}",
}


@pytest.mark.parametrize("rule", REMOVED)
def test_each_rule_of_form_removes_what_it_names(rule: str) -> None:
    assert removed_by(REMOVED[rule]) == rule


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        f"See our privacy policy. {PROSE}".replace(". ", ".\n"),
        many(6),
        "河流把水从山上带到海里，一路上塑造着大地。人们很早就在那里定居。",
        "- one item with words in it\n- another one, with more words\n" + many(4),
    ],
)
def test_prose_lists_and_ideographs_are_kept(text: str) -> None:
    assert removed_by(text) is None


def test_lines_that_end_in_dots_are_removed() -> None:
    assert removed_by("\n".join(f"{line}…" for line in many(6).split("\n")), Form()) in {"symbols", "lines"}


def test_a_line_of_boilerplate_among_few_removes_the_document() -> None:
    page = "Please enable JavaScript to see this page and its contents\nAll rights reserved by the owners\n"
    assert removed_by(page + SENTENCE) == "boilerplate"


@pytest.mark.parametrize(("words", "rule"), [(4, "short"), (5, None), (8, None), (9, "long")])
def test_limits_of_words_are_inclusive(words: int, rule: str | None) -> None:
    assert removed_by(" ".join(SENTENCE.split()[:words]), Form(5, 8)) == rule


def plain_repetition(words: list[str]) -> float:
    """Table A1 of Gopher, over lists of words."""
    if len(words) < quality.REPETITION_WORDS:
        return 0
    total, worst = sum(map(len, words)), 0.0
    for n, limit in quality.TOP_GRAMS.items():
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        sizes = [sum(map(len, gram)) * count for gram, count in grams.items() if count > 1]
        worst = max([worst, *(size / total / limit for size in sizes)])
    for n, limit in quality.REPEATED_GRAMS.items():
        seen, covered = set(), set()
        for i in range(len(words) - n + 1):
            gram = tuple(words[i : i + n])
            if gram in seen:
                covered |= set(range(i, i + n))
            seen.add(gram)
        worst = max(worst, sum(len(words[i]) for i in covered) / total / limit)
    return worst


DOCUMENTS = st.lists(
    st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "e", "ff"]), max_size=90)
    | st.integers(5, 12).map(lambda n: [f"w{i % n}" for i in range(60)]),
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(documents=DOCUMENTS)
def test_repetition_is_that_of_lists_of_words(documents: list[list[str]]) -> None:
    texts = [" ".join(words) for words in documents]
    got = [shape.repeated for shape in shapes(texts, Words.of(texts))]
    assert got == pytest.approx([plain_repetition(words) for words in documents])
