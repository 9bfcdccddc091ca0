from __future__ import annotations

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from safety.filter.words import Words, words_of
from tests.paths import ROOT

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), max_size=6)


def test_words_are_letters_and_digits_in_lower_case() -> None:
    assert words_of("Don't STOP_now, it's 5 p.m. — Größe!") == [
        "don", "t", "stop", "now", "it", "s", "5", "p", "m", "größe",
    ]  # fmt: skip


def test_each_ideograph_is_a_word() -> None:
    assert words_of("机器 learning 学習する") == ["机", "器", "learning", "学", "習", "す", "る"]


@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, longest=st.integers(1, 6))
def test_n_grams_are_equal_when_their_hashes_are(texts: list[str], longest: int) -> None:
    words = Words.of(texts)
    split = [text.split() for text in texts]
    for n, hashes in words.grams(longest):
        got = hashes[words.left >= n].tolist()
        wanted = [tuple(text[i : i + n]) for text in split for i in range(len(text) - n + 1)]
        assert len(got) == len(wanted)
        assert len(set(got)) == len(set(wanted)) == len(set(zip(got, wanted, strict=True)))


@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, data=st.data())
def test_a_selection_is_as_if_the_others_had_never_been(texts: list[str], data: st.DataObject) -> None:
    chosen = [i for i in range(len(texts)) if data.draw(st.booleans())]
    got, wanted = Words.of(texts).only(chosen), Words.of([texts[i] for i in chosen])
    assert got.flat == wanted.flat
    assert got.hashes.tolist() == wanted.hashes.tolist()
    assert got.starts.tolist() == wanted.starts.tolist()
    assert got.left.tolist() == wanted.left.tolist()


def test_hashes_are_the_same_in_another_process() -> None:
    program = "from safety.filter.words import Words; print(Words.of(['some words']).hashes.tolist())"
    there = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert there.stdout.strip() == f"{Words.of(['some words']).hashes.tolist()}"
