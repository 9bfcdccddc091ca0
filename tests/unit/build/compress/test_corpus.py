"""What passes read: docstrings of the standard library, and windows of ids."""

from __future__ import annotations

import json
import pydoc_data.topics

import pytest
from tokenizers import Tokenizer

from build.compress.corpus import default_texts, docstrings, windows
from build.errors import BadInput
from tests.models import tiny

TOKENIZER = json.dumps(tiny.tokenizer_json()).encode()


@pytest.fixture(scope="module")
def texts() -> tuple[str, ...]:
    return default_texts()


def test_the_default_texts_are_prose(texts: tuple[str, ...]) -> None:
    assert 1_000_000 < sum(map(len, texts)) < 4_000_000
    joined = "\n".join(texts)
    assert (json.__doc__ or "").strip()[:200] in joined
    assert "def __init__(self" not in joined[:20_000]


def test_what_builds_are_scored_on_is_not_read(texts: tuple[str, ...]) -> None:
    joined = "\n".join(texts)
    topics = pydoc_data.topics.topics
    lines = {line.strip() for text in topics.values() for line in text.splitlines() if len(line) > 60}
    shared = lines & {line.strip() for line in joined.splitlines()}
    assert len(shared) < len(lines) / 100


def test_docstrings_of_more_than_a_line_are_found_at_every_level() -> None:
    long = "Says more than one line would, for it is eighty characters long or more than that: so."
    source = f'"""{long} 1"""\nclass A:\n  """short"""\n  async def f(self):\n    """{long} 2"""\n'
    assert list(docstrings(source.encode())) == [f"{long} 1", f"{long} 2"]
    assert list(docstrings(b"def (")) == []
    assert list(docstrings(b"'\\d'\n")) == []


def test_windows_are_spread_over_all_texts() -> None:
    tokenizer = Tokenizer.from_str(TOKENIZER.decode())
    texts = ["a" * 500, "b" * 500, "c" * 500]
    ids = windows(TOKENIZER, texts, 3, 20)
    assert ids.shape == (3, 20)
    assert [tokenizer.decode(row.tolist())[-1] for row in ids] == ["a", "b", "c"]


def test_texts_that_fill_no_window_are_refused() -> None:
    with pytest.raises(BadInput, match="texts: 7 characters do not fill one window of 20 tokens"):
        windows(TOKENIZER, ["too few"], 3, 20)
