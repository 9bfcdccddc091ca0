from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.filter import duplicates
from safety.filter.duplicates import BANDS, Index, Seen, exact_keys, near_keys
from safety.filter.words import U64, Words, words_of
from tests.paths import ROOT


def keys_of(texts: list[str]) -> U64:
    return np.column_stack([exact_keys(texts), near_keys(Words.of(texts))])


def admitted(index: Index, keys: U64, size: int) -> list[str | None]:
    return [answer for i in range(0, len(keys), size) for answer in index.admit(keys[i : i + size])]


@settings(max_examples=40, deadline=None)
@given(batches=st.lists(st.lists(st.integers(0, 30)), max_size=12))
def test_keys_are_found_again(batches: list[list[int]]) -> None:
    seen, wanted = Seen(), set[int]()
    for batch in batches:
        keys = np.array(batch, np.uint64)
        assert seen.has(keys).tolist() == [key in wanted for key in batch]
        seen.add(keys)
        wanted |= set(batch)


TEXTS = st.lists(st.sampled_from(["one", "two", "one two", "", " one  two", "a b c d e f", "a b c d e g"]))


@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, size=st.integers(1, 5))
def test_every_exact_duplicate_and_nothing_else_is_removed(texts: list[str], size: int) -> None:
    seen, wanted = set[str](), list[str | None]()
    for text in texts:
        plain = " ".join(text.split())
        wanted.append("exact-duplicate" if plain in seen else None)
        seen.add(plain)
    assert admitted(Index(exact=True, near=False), keys_of(texts), size) == wanted


ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1 + BANDS, max_size=1 + BANDS), max_size=25)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, size=st.integers(1, 6))
def test_a_text_is_near_when_it_shares_a_band_with_a_kept_one(rows: list[list[int]], size: int) -> None:
    """Values repeat in all columns, so bands that were mixed up would be seen."""
    rows = [
        [value * 100 + (i if column % 3 else 0) for column, value in enumerate(row)]
        for i, row in enumerate(rows)
    ]
    kept, wanted = list[list[int]](), list[str | None]()
    for row in rows:
        if any(row[0] == other[0] for other in kept):
            wanted.append("exact-duplicate")
        elif any(a == b for other in kept for a, b in zip(row[1:], other[1:], strict=True)):
            wanted.append("near-duplicate")
        else:
            wanted.append(None)
            kept.append(row)
    keys = np.array(rows, np.uint64).reshape(-1, 1 + BANDS)
    assert admitted(Index(exact=True, near=True), keys, size) == wanted


@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, size=st.integers(1, 4))
def test_an_index_that_is_loaded_answers_as_the_first_did(texts: list[str], size: int) -> None:
    keys = keys_of(texts)
    first, second = Index(exact=True, near=True), Index(exact=True, near=True)
    kept = [answer is None for answer in admitted(first, keys, size)]
    second.load(keys[kept])
    assert second.admit(keys) == first.admit(keys)


def test_keys_do_not_depend_on_the_texts_beside_them() -> None:
    texts = ["", "one two", "a b c d e", "a b c d e f g h i", "one two three four", "x"]
    together = keys_of(texts)
    assert together.tolist() == [keys_of([text])[0].tolist() for text in texts]
    assert len({tuple(row) for row in together.tolist()}) == len(texts)


def similarity(a: str, b: str) -> float:
    """Jaccard, of sets of five-word shingles."""
    one, two = (
        {tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (words_of(a), words_of(b))
    )
    return len(one & two) / len(one | two)


def test_near_duplicates_are_found_as_often_as_the_bands_promise() -> None:
    """Words of the repository's own pages are replaced at random; what is found is compared with the true
    similarities of all pairs."""
    source = random.Random(5)
    paragraphs = [p for page in sorted((ROOT / "docs").glob("*.md")) for p in page.read_text().split("\n\n")]
    bases = [p for p in dict.fromkeys(paragraphs) if len(words_of(p)) >= 40][:300]
    variants = []
    for base in bases:
        words = words_of(base)
        for i in source.sample(range(len(words)), source.choice([1, 2, 3, 6])):
            words[i] = "other"
        variants.append(" ".join(words))
    one, two = near_keys(Words.of(bases)), near_keys(Words.of(variants))
    found = (one == two).any(axis=1)
    true = np.array([similarity(a, b) for a, b in zip(bases, variants, strict=True)])
    promised = 1 - (1 - true**duplicates.ROWS) ** duplicates.BANDS
    deviation = np.sqrt((promised * (1 - promised)).sum())
    assert abs(found.sum() - promised.sum()) < 4 * deviation
    assert found[true > 0.9].all()


def test_different_texts_are_not_near() -> None:
    paragraphs = [p for page in sorted((ROOT / "docs").glob("*.md")) for p in page.read_text().split("\n\n")]
    texts = [p for p in dict.fromkeys(paragraphs) if len(words_of(p)) >= 20]
    answers = Index(exact=False, near=True).admit(keys_of(texts))
    for i, answer in enumerate(answers):
        if answer is not None:
            assert max(similarity(texts[i], other) for other in texts[:i]) > 0.4
