"""Stop words end an answer, and no part of one is ever sent."""

from __future__ import annotations

import pytest

from tests.live.wire import Wire, ask, chat

pytestmark = [pytest.mark.contract, pytest.mark.e2e]

PROMPT = "1, 2, 3, 4, 5, 6,"


@pytest.fixture
def plain(wire: Wire) -> str:
    """What the model says when nothing stops it; the tests cut their stop words from it."""
    return ask(wire, PROMPT, max_tokens=24).text


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_word_ends_the_answer_before_itself(wire: Wire, plain: str, stream: bool) -> None:
    word = plain[8:10]
    answer = ask(wire, PROMPT, max_tokens=24, stop_words=[word], stream=stream)
    assert answer.text == plain[: plain.index(word)]
    assert answer.finish == "stop_sequence"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("length", [3, 7, 12])
def test_a_stop_word_split_over_tokens(wire: Wire, plain: str, length: int, stream: bool) -> None:
    """Longer than any token, and beginning within one."""
    word = plain[7 : 7 + length]
    answer = ask(wire, PROMPT, max_tokens=24, stop_words=[word], stream=stream)
    assert answer.text == plain[: plain.index(word)]
    assert answer.finish == "stop_sequence"


def test_a_piece_of_a_stop_word_is_sent_when_it_does_not_go_on(wire: Wire, plain: str) -> None:
    almost = plain[7:12] + "¶"
    answer = ask(wire, PROMPT, max_tokens=24, stop_words=[almost], stream=True)
    assert (answer.text, answer.finish) == (plain, "length")


def test_of_several_stop_words_the_first_to_come_counts(wire: Wire, plain: str) -> None:
    words = [plain[15:17], plain[5:7], "never said"]
    answer = ask(wire, PROMPT, max_tokens=24, stop_words=words)
    assert answer.text == plain[: min(plain.index(word) for word in words[:2])]


def test_a_stop_word_of_several_bytes(wire: Wire) -> None:
    prompt = "😀 🚀 🌍 😀 🚀 🌍 😀 🚀"
    plain = ask(wire, prompt, max_tokens=24).text
    word = next(character for character in plain if ord(character) > 0xFFFF)
    answer = ask(wire, prompt, max_tokens=24, stop_words=[word], stream=True)
    assert answer.text == plain[: plain.index(word)]
    assert "\ufffd" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("length", [1, 3, 7])
def test_a_bad_word_is_in_no_answer(wire: Wire, plain: str, length: int, stream: bool) -> None:
    word = plain[8 : 8 + length]
    answer = ask(wire, PROMPT, max_tokens=24, bad_words=[word, "never said"], stream=stream)
    assert word not in answer.text
    assert answer.text.startswith(plain[: plain.index(word)].rstrip())
    assert answer.finish == "length"


def test_a_bad_word_that_is_not_said_changes_nothing(wire: Wire, plain: str) -> None:
    assert ask(wire, PROMPT, max_tokens=24, bad_words=["never said"]).text == plain


def test_min_tokens_puts_a_stop_word_off(wire: Wire, plain: str) -> None:
    answer = ask(wire, PROMPT, max_tokens=24, min_tokens=24, stop_words=[plain[8:10]])
    assert (answer.text, answer.tokens) == (plain, 24)


def test_a_stop_word_of_the_prompt_does_not_count(wire: Wire, plain: str) -> None:
    assert ask(wire, PROMPT, max_tokens=24, stop_words=["1, 2, 3"]).text == plain


def test_stop_words_in_a_chat(wire: Wire) -> None:
    plain = chat(wire, "Say hi.", max_tokens=40)
    word = plain.text.split()[1]
    answer = chat(wire, "Say hi.", max_tokens=40, stop_words=[word])
    assert answer.text == plain.text[: plain.text.index(word)]
    assert answer.finish == "stop_sequence"


def test_the_most_and_the_longest_stop_words(wire: Wire, plain: str) -> None:
    words = [f"{number:x<256}" for number in range(16)]
    assert ask(wire, PROMPT, max_tokens=24, stop_words=words).text == plain


def test_no_stop_words_at_all(wire: Wire, plain: str) -> None:
    if wire.name == "http":  # a tensor of no elements has no place in a batch of one
        assert ask(wire, PROMPT, max_tokens=24, stop_words=[]).text == plain
