"""Windows as lm-eval cuts them, and the protocols over their log-probabilities."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.evaluate.items import Choice, Scores
from safety.evaluate.likelihood import mean, preference, scores, shared, softmax, total, windows
from safety.evaluate.model import ModelError
from tests.unit.safety.evaluate.fakes import PREFIX, WordModel, logprob


def choice(context: str, *options: str) -> Choice:
    return Choice("one", "set", "", context, options)


def test_a_sentence_without_context_follows_the_prefix() -> None:
    model = WordModel()
    (window,) = windows(model, choice("", "The cat sleeps."))
    assert window.tokens == (PREFIX, *model.encode("The cat sleeps."))
    assert window.start == 1


def test_a_prefix_that_the_text_brings_is_not_doubled() -> None:
    model = WordModel()
    model.words["<s>"] = PREFIX
    (window,) = windows(model, choice("", "<s> The cat"))
    assert window.tokens == (PREFIX, *model.encode(" The cat"))
    assert window.start == 1


def test_only_the_option_is_scored_after_a_context() -> None:
    model = WordModel()
    found = windows(model, choice("The capital of France is", " Paris", " the city of Lyon"))
    assert [window.start for window in found] == [5, 5]
    assert scores(found, list(model.score(found))).tokens[1] == tuple(model.encode(" the city of Lyon"))


def test_spaces_at_the_end_of_the_context_belong_to_the_option() -> None:
    model = WordModel()
    apart, together = (windows(model, choice(*texts)) for texts in (("Say ", "yes"), ("Say", " yes")))
    assert apart == together


def test_the_option_is_encoded_together_with_its_context() -> None:
    """Where both join into one token, encoding them apart would score tokens that no text has."""
    model = WordModel()
    (window,) = windows(model, choice("un happy", "ness is"))
    assert window.tokens == tuple(model.encode("un happyness is"))
    assert window.start == 2


def test_a_long_context_loses_its_beginning() -> None:
    model = WordModel(positions=4)
    (window,) = windows(model, choice("a b c d e", " f g"))
    assert window.tokens == tuple(model.encode("a b c d e f g"))[-4:]
    assert window.start == 2


@pytest.mark.parametrize(("context", "option"), [("a", ""), ("", ""), ("a", " b c d e")])
def test_an_option_without_tokens_or_with_too_many_is_refused_by_name(context: str, option: str) -> None:
    with pytest.raises(ModelError, match=r"set, item one: an option of \d tokens, must be from 1 to 3"):
        windows(WordModel(positions=4), choice(context, option))


words = st.text("abc", min_size=1, max_size=3)
texts = st.lists(words, min_size=1, max_size=8).map(" ".join)


@given(texts, texts, st.integers(9, 40))
def test_the_sum_is_the_chain_rule_over_the_tokens_of_the_option(
    context: str, option: str, positions: int
) -> None:
    model = WordModel(positions)
    found = windows(model, choice(context, " " + option))
    (value,) = total(scores(found, list(model.score(found))))
    whole = model.encode(f"{context} {option}")[-positions:]
    first = len(whole) - len(option.split())
    assert value == pytest.approx(sum(logprob(whole[: place + 1]) for place in range(first, len(whole))))


def test_a_longer_option_is_less_likely_in_sum_alone() -> None:
    found = Scores(((1, 2), (1, 2, 3, 4)), ((-2.0, -2.0), (-1.5, -1.5, -1.5, -1.5)))
    assert preference(total(found)).index == 0
    assert preference(mean(found)).index == 1
    assert mean(found) == [-2.0, -1.5]


def test_words_that_differ_do_not_count_among_shared_tokens() -> None:
    """The rare word of the second costs 20 nats, and makes what follows likelier."""
    found = Scores(((5, 8, 6, 7), (5, 9, 3, 6, 7)), ((-1, -2, -3, -4), (-1, -20, -9, -2, -4)))
    assert shared(found) == [-8, -7]
    assert preference(total(found)).index == 0
    assert preference(shared(found)).index == 1


ids = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@given(ids, ids)
def test_shared_tokens_are_a_common_subsequence_in_both(first: list[int], second: list[int]) -> None:
    """As log-probabilities the ids themselves: the same tokens add up to the same."""
    both = Scores((tuple(first), tuple(second)), (tuple(map(float, first)), tuple(map(float, second))))
    one, other = shared(both)
    assert one == other
    same = Scores((tuple(first),) * 2, (tuple(map(float, first)),) * 2)
    assert shared(same) == [sum(first)] * 2


@given(st.lists(st.floats(-2000, 0), min_size=2, max_size=12))
def test_preferences_add_up_and_keep_the_order(values: list[float]) -> None:
    found = softmax(values)
    assert math.fsum(found) == pytest.approx(1)
    best = preference(values)
    assert found[best.index] == max(found)
    assert best.margin >= 0


def test_preferences_are_ratios_of_likelihoods() -> None:
    assert softmax([math.log(0.003), math.log(0.001)]) == pytest.approx([0.75, 0.25])
    assert preference([-4.0, -1.5, -2.0]).margin == 0.5
