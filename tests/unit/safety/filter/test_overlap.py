from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.filter.errors import FilterError
from safety.filter.overlap import Evaluation, Overlap, overlaps, read_evaluation
from safety.filter.words import Words, words_of

TEXTS = st.lists(st.lists(st.sampled_from("ab"), max_size=9).map(" ".join), max_size=6)


def shares(text: str, evaluation: str, longest: int, shortest: int) -> bool:
    """Compares every place of one with every place of the other."""
    a, b = words_of(text), words_of(evaluation)
    n = min(len(b), longest)
    if n < shortest:
        return False
    return any(a[i : i + n] == b[j : j + n] for i in range(len(a) - n + 1) for j in range(len(b) - n + 1))


@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, evaluation=TEXTS, shortest=st.integers(2, 4))
def test_overlaps_are_those_of_all_pairs(texts: list[str], evaluation: list[str], shortest: int) -> None:
    found = Evaluation(evaluation, 5, shortest).find(Words.of(texts))
    wanted = {
        i for i, text in enumerate(texts) if any(shares(text, other, 5, shortest) for other in evaluation)
    }
    assert set(found) == wanted
    for i, overlap in found.items():
        assert shares(texts[i], evaluation[overlap.evaluation], 5, shortest)
        assert overlap.words in " ".join(words_of(texts[i]))


def test_case_and_punctuation_do_not_hide_an_overlap() -> None:
    text = "One two three FOUR five six, seven eight nine ten eleven twelve thirteen!"
    (found,) = overlaps(["unrelated", f"so: {text.lower().replace(',', '')} fourteen"], ["no", text])
    assert (found.text, found.evaluation) == (1, 1)
    assert found.words == " ".join(words_of(text))


def test_twelve_words_of_a_longer_text_are_no_overlap() -> None:
    words = [f"w{i}" for i in range(20)]
    assert not list(overlaps([" ".join(words[:12])], [" ".join(words)]))
    assert list(overlaps([" ".join(words[:13])], [" ".join(words)])) == [Overlap(0, 0, " ".join(words[:13]))]


def test_a_text_of_eight_words_counts_whole_and_a_shorter_one_does_not() -> None:
    eight = " ".join(f"w{i}" for i in range(8))
    seven = " ".join(f"w{i}" for i in range(7))
    assert [found.evaluation for found in overlaps([f"a {eight} b"], [seven, eight])] == [1]
    assert Evaluation([seven, eight, ""]).ignored == 2


def test_a_long_stream_of_texts_is_numbered_through() -> None:
    words = " ".join(f"w{i}" for i in range(13))
    texts = (words if i in {3, 2500} else f"text {i}" for i in range(3000))
    assert [found.text for found in overlaps(texts, [words])] == [3, 2500]


def test_strings_of_every_format_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("line one\nline two\n")
    (tmp_path / "b.jsonl").write_text('{"q": "asked", "n": 1, "options": ["x", {"y": "z"}]}\n\n"bare"\n')
    (tmp_path / "c.csv").write_text('id,text\n1,"of two\nlines, quoted"\n')
    (tmp_path / "d.tsv").write_text("id\ttext\n2\ttabs, here\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "e.json").write_text(json.dumps({"data": [{"s": "deep"}, None, 2.5]}))
    assert read_evaluation([tmp_path]) == [
        "line one", "line two", "asked", "x", "z", "bare", "id", "text", "1", "of two\nlines, quoted",
        "2", "tabs, here", "deep",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good\nbad \xff", r"a\.txt: byte 9 is not UTF-8"),
        ("a.json", b'{"a": ', r"a\.json: Expecting value: line 1 column 7"),
        ("a.jsonl", b'"good"\n{"a": \n', r"a\.jsonl: line 2: not JSON"),
        ("a.csv", b"a," + b"b" * 200_000, r"a\.csv: field larger than field limit"),
    ],
)
def test_an_evaluation_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FilterError, match=message):
        read_evaluation([tmp_path / name])


def test_a_missing_evaluation_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match=r"missing\.txt: No such file"):
        read_evaluation([tmp_path / "missing.txt"])
