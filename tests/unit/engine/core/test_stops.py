from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.stops import Piece, StopMatcher, TextStream
from engine.core.tokens import TokenTable

# A small alphabet, so that words overlap with themselves and with one another.
ab = st.binary(min_size=1, max_size=6).map(lambda data: bytes(b"abc"[byte % 3] for byte in data))
words_of_ab = st.lists(ab, max_size=4).map(tuple)


def first_match(words: tuple[bytes, ...], text: bytes, after: int = 0) -> tuple[int, int] | None:
    """The first stop sequence by where it ends, past `after`, the longest of those: its begin and end."""
    for end in range(after + 1, len(text) + 1):
        ending = [word for word in words if text[:end].endswith(word)]
        if ending:
            return end - max(map(len, ending)), end
    return None


def held_back(words: tuple[bytes, ...], text: bytes) -> int:
    """The length of the longest end of the text that begins a stop sequence."""
    ends = (text[start:] for start in range(len(text)))
    return next((len(end) for end in ends if any(word.startswith(end) for word in words)), 0)


@given(words_of_ab, st.lists(ab | st.just(b""), max_size=12))
@example(words=(b"aab",), pieces=[b"aaab"])
@example(words=(b"abab", b"bb"), pieces=[b"aba", b"abb"])
@example(words=(b"b", b"abc"), pieces=[b"ab"])
@example(words=(b"aabaaac",), pieces=[b"aabaaabaaac"])
def test_matcher_equals_naive_search(words: tuple[bytes, ...], pieces: list[bytes]) -> None:
    matcher, seen = StopMatcher(words), b""
    for piece in pieces:
        start = matcher.push(piece)
        expected = first_match(words, seen + piece)
        assert (start is None) == (expected is None)
        if start is not None and expected is not None:
            assert len(seen) + start == expected[0]
            return
        seen += piece
        assert matcher.held == held_back(words, seen)


def test_the_longest_of_the_words_that_end_on_one_byte_wins() -> None:
    assert StopMatcher((b"c", b"abc", b"bc")).push(b"xabc") == 1


def test_a_match_may_begin_in_an_earlier_push() -> None:
    matcher = StopMatcher((b"STOP",))
    assert matcher.push(b"..ST") is None
    assert matcher.held == 2
    assert matcher.push(b"OP!") == -2


def test_without_words_nothing_is_held() -> None:
    matcher = StopMatcher(())
    assert matcher.push(b"anything") is None
    assert matcher.held == 0


def test_a_word_may_be_given_twice() -> None:
    assert StopMatcher((b"ab", b"ab")).push(b"ab") == 0


# Tables of every kind: letters, parts of characters, bytes that are never text, empty special tokens.
characters = st.sampled_from(["a", "b", "é", "€", "😀", " ", "\n"])
text_words = st.lists(characters, min_size=1, max_size=3).map("".join)
pieces = st.binary(max_size=4) | text_words.map(str.encode) | st.just(b"")
splits = (
    st.lists(st.sampled_from("aé€😀 b").map(str.encode), min_size=1, max_size=4)
    .map(b"".join)
    .flatmap(lambda data: st.integers(0, len(data)).map(lambda cut: data[:cut]))
)
tables = st.lists(pieces | splits, min_size=1, max_size=8)
schedules = st.lists(st.booleans(), min_size=1, max_size=40)


def decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def text_of(span: Piece, table: TokenTable) -> str:
    """As the detokenizer step computes it."""
    return decode(table.join(span.tokens)[span.begin - span.base : span.end - span.base])


def play(
    table: TokenTable, words: tuple[str, ...], tokens: list[int], takes: list[bool], free: int = 0
) -> tuple[list[Piece], bytes, bool]:
    """The spans taken on the way, the bytes that went in, and whether a stop sequence ended it.

    `takes` says after which tokens something is taken; the first `free` tokens are not matched.
    """
    stream = TextStream(table, tuple(word.encode() for word in words))
    spans, data, stopped = [], b"", False
    for place, token in enumerate(tokens):
        data += table[token]
        stopped = stream.push(token, match=place >= free)
        if stopped:
            break
        if takes[place % len(takes)]:
            spans.append(stream.take())
    return [*spans, stream.take(final=True)], data, stopped


def test_a_space_before_an_answer_is_dropped_once() -> None:
    """SentencePiece spells every word with one, the first too."""
    table = TokenTable([b"", b" ", b" a", b"b"])
    for tokens, text in (([0, 2, 2], "a a"), ([1, 2], " a"), ([3, 2], "b a"), ([1], ""), ([0], "")):
        for step in (True, False):
            stream, spans = TextStream(table, (b"STOP",), drop_space=True), []
            for token in tokens:
                assert not stream.push(token)
                spans += [stream.take()] if step else []
            spans.append(stream.take(final=True))
            assert "".join(text_of(span, table) for span in spans) == text
            assert text_of(reduce(Piece.then, spans), table) == text


def test_a_stop_sequence_may_begin_in_the_space_that_is_dropped() -> None:
    table = TokenTable([b" a", b"b"])
    stream = TextStream(table, (b" a",), drop_space=True)
    assert stream.push(0)
    assert text_of(stream.take(final=True), table) == ""


stop_words = st.lists(text_words, max_size=3).map(tuple)
answers = st.tuples(tables, st.lists(st.integers(0, 7), max_size=40))


@given(answers, stop_words, schedules)
def test_chunks_join_to_the_unary_text(
    answer: tuple[list[bytes], list[int]], words: tuple[str, ...], takes: list[bool]
) -> None:
    table, tokens = TokenTable(answer[0]), answer[1]
    spans, data, stopped = play(table, words, tokens, takes)
    unary, _, _ = play(table, words, tokens, [False])
    joined = "".join(text_of(span, table) for span in spans)
    assert joined == text_of(unary[0], table)
    match = first_match(tuple(word.encode() for word in words), data)
    assert stopped == (match is not None)
    assert joined == decode(data[: match[0]] if match else data)


@given(answers, stop_words, schedules)
def test_no_chunk_shows_any_of_a_stop_sequence(
    answer: tuple[list[bytes], list[int]], words: tuple[str, ...], takes: list[bool]
) -> None:
    table = TokenTable(answer[0])
    spans, _, _ = play(table, words, answer[1], takes)
    sent = b"".join(table.join(s.tokens)[s.begin - s.base : s.end - s.base] for s in spans)
    assert not any(word.encode() in sent for word in words)


@given(answers, stop_words, schedules, st.integers(0, 20))
def test_spans_are_contiguous_and_join_to_one(
    answer: tuple[list[bytes], list[int]], words: tuple[str, ...], takes: list[bool], free: int
) -> None:
    table = TokenTable(answer[0])
    spans, _, _ = play(table, words, answer[1], takes, free)
    whole = spans[0]
    for span in spans[1:]:
        whole = whole.then(span)
    assert text_of(whole, table) == "".join(text_of(span, table) for span in spans)
    assert whole.begin == 0
    assert whole.end == spans[-1].end


@given(answers, schedules)
def test_joining_spans_is_associative(answer: tuple[list[bytes], list[int]], takes: list[bool]) -> None:
    table = TokenTable(answer[0])
    spans = play(table, ("ab",), answer[1], [*takes, True, True])[0]
    for a, b, c in zip(spans, spans[1:], spans[2:], strict=False):
        assert a.then(b).then(c) == a.then(b.then(c))


@given(answers, stop_words, schedules, st.integers(0, 20))
@example(answer=([b"S", b"TOP"], [0, 1, 0, 1]), words=("STOP",), takes=[True], free=1)
@example(answer=([b"a"], [0, 0, 0, 0]), words=("aa",), takes=[True], free=2)
def test_a_stop_sequence_may_begin_but_not_end_before_the_minimum(
    answer: tuple[list[bytes], list[int]], words: tuple[str, ...], takes: list[bool], free: int
) -> None:
    table, tokens = TokenTable(answer[0]), answer[1]
    spans, data, _ = play(table, words, tokens, takes, free)
    match = first_match(tuple(word.encode() for word in words), data, len(table.join(tokens[:free])))
    expected = data[: match[0]] if match else data
    assert "".join(text_of(span, table) for span in spans) == decode(expected)


def test_what_cannot_become_a_stop_sequence_is_sent_at_once() -> None:
    table = TokenTable([b"hello ", b"ST", b"AY", b"OP"])
    stream = TextStream(table, (b"STOP",))
    sent = []
    for token in (0, 1, 2, 1):
        stream.push(token)
        sent.append(text_of(stream.take(), table))
    assert sent == ["hello ", "", "STAY", ""]
    assert stream.push(3)
    assert text_of(stream.take(final=True), table) == ""


def test_a_half_character_waits_for_its_other_half() -> None:
    table = TokenTable([b"\xe2", b"\x82", b"\xac!"])
    stream = TextStream(table, ())
    sent = []
    for token in range(3):
        stream.push(token)
        sent.append(text_of(stream.take(), table))
    assert sent == ["", "", "€!"]


def test_an_answer_that_ends_inside_a_character_shows_a_replacement() -> None:
    table = TokenTable([b"a\xe2\x82"])
    stream = TextStream(table, ())
    stream.push(0)
    assert text_of(stream.take(), table) == "a"
    assert text_of(stream.take(final=True), table) == "�"


def test_held_text_of_an_unfinished_stop_sequence_comes_with_the_end() -> None:
    table = TokenTable([b"ST"])
    stream = TextStream(table, (b"STOP",))
    stream.push(0)
    assert text_of(stream.take(), table) == ""
    assert text_of(stream.take(final=True), table) == "ST"


def test_sent_tokens_are_let_go() -> None:
    table = TokenTable([b"word "])
    stream = TextStream(table, (b"STOP",))
    for _ in range(1000):
        stream.push(0)
        assert len(stream.take().tokens) == 1


def test_nothing_may_follow_a_stop_sequence() -> None:
    stream = TextStream(TokenTable([b"x"]), (b"x",))
    assert stream.push(0)
    with pytest.raises(AssertionError):
        stream.push(0)
