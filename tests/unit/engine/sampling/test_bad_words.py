"""Bad words: the tokens that would complete one are forbidden, no others, and no answer contains one."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.request import Sampling
from engine.core.tokens import TokenTable, Vocabulary
from engine.sampling.processors import BadWords
from engine.sampling.sampler import TokenChooser, choose

# Two letters, so that words overlap with themselves, with each other and with the tokens.
pieces = st.text("ab", max_size=4).map(str.encode)
tables = st.lists(pieces, min_size=2, max_size=12).map(lambda entries: [b"a", b"b", *entries])
words = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3)


@given(tables, words, st.lists(st.integers(0, 3), max_size=8))
@example([b"a", b"b", b"", b"ba"], ["aba"], [0, 2])
def test_exactly_the_tokens_that_would_complete_a_word_are_forbidden(
    entries: list[bytes], bad: list[str], drawn: list[int]
) -> None:
    answer: list[int] = []
    for token in drawn:  # an answer without a bad word, as the sampler makes it
        text = b"".join(entries[one] for one in (*answer, token % len(entries)))
        if not any(word.encode() in text for word in bad):
            answer.append(token % len(entries))
    text = b"".join(entries[token] for token in answer)
    completing = [
        token for token, entry in enumerate(entries) if any(word.encode() in text + entry for word in bad)
    ]
    forbidden = BadWords([word.encode() for word in bad], TokenTable(entries)).after(answer)
    assert forbidden == completing


@given(tables, words, st.integers(0, 2**32), st.sampled_from([0.0, 1.0]))
def test_no_answer_contains_a_bad_word(
    entries: list[bytes], bad: list[str], seed: int, temperature: float
) -> None:
    entries = [*entries, b"c"]  # what is never forbidden
    sampling = Sampling(max_tokens=20, bad_words=tuple(bad), temperature=temperature, seed=seed)
    vocabulary = Vocabulary(len(entries), frozenset(), TokenTable(entries))
    chooser = TokenChooser(sampling, (0, 1), 22, vocabulary)
    scores = np.random.default_rng(seed).standard_normal((20, 1, len(entries))).astype(np.float32)
    choices = [choose(row, [chooser])[0] for row in scores]
    text = vocabulary.table.join(choice.token for choice in choices if choice)
    assert not [word for word in bad if word.encode() in text]
