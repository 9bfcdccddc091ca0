"""Server-sent events."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halimede.wire import SseParser

lines = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"))


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\ndata:  b\n\n", ["a", " b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b": comment\nevent: x\nid: 1\nretry: 5\ndata: a\n\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"\n\n: only a comment\n\n", []),
        (b"data\n\n", [""]),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
        (b"database: no\n\n", []),
        ("data: é🙂\n\n".encode(), ["é🙂"]),
        (b"data: \xff\n\n", ["\ufffd"]),
    ],
)
def test_streams_follow_the_standard(stream: bytes, events: list[str]) -> None:
    assert SseParser().feed(stream) == events
    assert _by_pieces([stream[i : i + 1] for i in range(len(stream))]) == events


@given(
    st.lists(st.lists(lines, min_size=1, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_events_do_not_depend_on_how_the_stream_is_cut(events: list[list[str]], end: str, data: Any) -> None:
    blocks = ["".join(f"data: {line}{end}" for line in event) + end for event in events]
    stream = "".join(blocks).encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    pieces = [stream[a:b] for a, b in pairwise([0, *sorted(cuts), len(stream)])]
    assert _by_pieces(pieces) == ["\n".join(event) for event in events]


def test_an_event_is_returned_with_its_blank_line() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r\n\r") == ["a"]
    assert parser.feed(b"\ndata: b\r\n\r\n") == ["b"]


def _by_pieces(pieces: list[bytes]) -> list[str]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]
